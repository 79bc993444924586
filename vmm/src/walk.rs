//! The guest's page tables, read as the CPU reads them: 4 and 5 levels, leaves of 4 KiB, 2 MiB and 1 GiB
//! (SDM vol. 3A, 4.5; APM vol. 2, 5.3).
//!
//! Pure: it takes the paging state and a way to read a table entry, and returns where an address leads. A walk visits
//! at most five entries, whatever they hold.

use kvm_bindings::kvm_sregs;
use vector14_hook::{Access, Cr3, GuestError, Pa, Translation, Va};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

/// How a vCPU in long mode translates addresses at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// The page tables in force.
    pub cr3: Cr3,
    /// Levels of the tables: 4 or 5.
    pub levels: u8,
    /// Whether bit 63 of an entry forbids execution (EFER.NXE); reserved otherwise.
    pub no_execute: bool,
}

impl Paging {
    /// The paging mode that these registers stand for; `None` outside of long mode.
    #[must_use]
    pub fn from_registers(sregs: &kvm_sregs) -> Option<Self> {
        let long_mode = sregs.efer & EFER_LMA != 0 && sregs.cr0 & CR0_PG != 0;
        long_mode.then_some(Self {
            cr3: Cr3(sregs.cr3),
            levels: if sregs.cr4 & CR4_LA57 != 0 { 5 } else { 4 },
            no_execute: sregs.efer & EFER_NXE != 0,
        })
    }

    /// Whether `address` is canonical: all bits above the translated ones are equal.
    #[must_use]
    pub fn is_canonical(&self, address: Va) -> bool {
        let unused = 64 - (12 + 9 * u32::from(self.levels));
        ((address.0 << unused).cast_signed() >> unused).cast_unsigned() == address.0
    }

    /// Walks the tables for `address`, reading entries with `load`.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical, or what `load` returns for a table outside of
    /// memory. An entry that does not lead on is not an error but a [`Step`] of its own.
    pub fn walk(&self, address: Va, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Result<Step, GuestError> {
        if !self.is_canonical(address) {
            return Err(GuestError::Malformed(address));
        }
        let mut access = Access::all();
        let mut table = self.cr3.root();
        for level in (1..=self.levels).rev() {
            let shift = 12 + 9 * u32::from(level - 1);
            let slot = table.offset(((address.0 >> shift) & 0x1ff) * 8);
            let entry = load(slot)?;
            if entry & PRESENT == 0 {
                return Ok(Step::Absent { level, slot, entry });
            }
            access &= self.rights(entry);
            let leaf = level == 1 || entry & PAGE_SIZE_BIT != 0;
            if !leaf {
                table = Pa(entry & FRAME);
                continue;
            }
            let page_size = 1 << shift;
            // Bit 12 of a large leaf is PAT; the address bits between it and the page size are reserved.
            let misplaced = entry & FRAME & (page_size - 1) & !0x1000;
            if level > 3 || (level > 1 && misplaced != 0) || (entry & NO_EXECUTE != 0 && !self.no_execute) {
                return Err(GuestError::Malformed(address));
            }
            let frame = entry & FRAME & !(page_size - 1);
            let address = Pa(frame | (address.0 & (page_size - 1)));
            return Ok(Step::Leaf(Translation { address, page_size, access }));
        }
        Err(GuestError::Malformed(address))
    }

    /// Where `address` leads.
    ///
    /// # Errors
    /// As [`Paging::walk`], and [`GuestError::NotMapped`] for an entry that is not present.
    pub fn translate(
        &self,
        address: Va,
        load: impl Fn(Pa) -> Result<u64, GuestError>,
    ) -> Result<Translation, GuestError> {
        match self.walk(address, load)? {
            Step::Leaf(translation) => Ok(translation),
            Step::Absent { .. } => Err(GuestError::NotMapped(address)),
        }
    }

    fn rights(&self, entry: u64) -> Access {
        let mut access = Access::empty();
        access.set(Access::WRITE, entry & WRITE != 0);
        access.set(Access::USER, entry & USER != 0);
        access.set(Access::EXECUTE, entry & NO_EXECUTE == 0 || !self.no_execute);
        access
    }

    /// A leaf entry for the 4 KiB frame at `frame`.
    #[must_use]
    pub fn leaf_entry(&self, frame: Pa, access: Access) -> u64 {
        let execute = access.contains(Access::EXECUTE) || !self.no_execute;
        (frame.0 & FRAME)
            | PRESENT
            | if access.contains(Access::WRITE) { WRITE } else { 0 }
            | if access.contains(Access::USER) { USER } else { 0 }
            | if execute { 0 } else { NO_EXECUTE }
    }

    /// An entry that leads to the table at `table` and leaves every right to the levels below.
    #[must_use]
    pub fn table_entry(table: Pa) -> u64 {
        (table.0 & FRAME) | PRESENT | WRITE | USER
    }
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At a leaf.
    Leaf(Translation),
    /// At an entry without P.
    Absent {
        /// Level of the table that holds the entry: 1 is the one whose entries map 4 KiB.
        level: u8,
        /// Guest-physical address of the entry.
        slot: Pa,
        /// The entry.
        entry: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Tables as a map from an entry's address to its value; what is not in it reads as 0.
    fn tables(entries: &[(u64, u64)]) -> impl Fn(Pa) -> Result<u64, GuestError> {
        let entries: HashMap<u64, u64> = entries.iter().copied().collect();
        move |slot| {
            if slot.0 >= 1 << 30 {
                return Err(GuestError::OutsideMemory(slot));
            }
            Ok(entries.get(&slot.0).copied().unwrap_or(0))
        }
    }

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), levels: 4, no_execute: true };
    const ALL: u64 = PRESENT | WRITE | USER;

    #[test]
    fn leaves_of_every_size_are_found() {
        let load = tables(&[
            (0x1000, 0x2000 | ALL),
            (0x2000, 0x3000 | ALL),
            (0x2008, 0x4000_0000 | ALL | PAGE_SIZE_BIT),
            (0x3000, 0x4000 | ALL),
            (0x3008, 0x0020_0000 | ALL | PAGE_SIZE_BIT),
            (0x4008, 0x9000 | PRESENT | USER | NO_EXECUTE),
        ]);
        let at = |va| PAGING.translate(Va(va), &load).unwrap();
        let expect = |address, page_size, access| Translation { address: Pa(address), page_size, access };
        assert_eq!(at(0x1234), expect(0x9234, 4096, Access::USER));
        assert_eq!(at(0x0020_1234), expect(0x0020_1234, 2 << 20, Access::all()));
        assert_eq!(at(0x4012_3456), expect(0x4012_3456, 1 << 30, Access::all()));
    }

    #[test]
    fn five_levels_are_walked_where_cr4_says_so() {
        let load =
            tables(&[(0x1008, 0x2000 | ALL), (0x2000, 0x3000 | ALL), (0x3000, 0x4000_0000 | ALL | PAGE_SIZE_BIT)]);
        let five = Paging { levels: 5, ..PAGING };
        assert_eq!(five.translate(Va(1 << 48), &load).unwrap().address, Pa(0x4000_0000));
        assert_eq!(PAGING.translate(Va(1 << 48), &load), Err(GuestError::Malformed(Va(1 << 48))));
    }

    #[test]
    fn a_table_that_points_to_itself_ends_after_its_levels() {
        let load = tables(&[(0x1000, 0x1000 | ALL)]);
        assert_eq!(PAGING.translate(Va(0x123), &load).unwrap().address, Pa(0x1123));
    }

    #[test]
    fn reserved_bits_and_tables_outside_of_memory_are_errors() {
        let outside = tables(&[(0x1000, 0x7000_0000 | ALL)]);
        assert_eq!(PAGING.translate(Va(0), outside), Err(GuestError::OutsideMemory(Pa(0x7000_0000))));
        let large_at_top = tables(&[(0x1000, 0x2000 | ALL | PAGE_SIZE_BIT)]);
        assert_eq!(PAGING.translate(Va(0), large_at_top), Err(GuestError::Malformed(Va(0))));
        let misplaced = tables(&[(0x1000, 0x2000 | ALL), (0x2000, 0x0020_0000 | ALL | PAGE_SIZE_BIT)]);
        assert_eq!(PAGING.translate(Va(0), misplaced), Err(GuestError::Malformed(Va(0))));
    }

    #[test]
    fn an_absent_entry_names_its_level_and_place() {
        let load = tables(&[(0x1000, 0x2000 | ALL)]);
        assert_eq!(PAGING.walk(Va(8 << 30), &load), Ok(Step::Absent { level: 3, slot: Pa(0x2040), entry: 0 }));
        assert_eq!(PAGING.translate(Va(8 << 30), &load), Err(GuestError::NotMapped(Va(8 << 30))));
    }

    #[test]
    fn canonical_addresses_are_sign_extended() {
        assert!(PAGING.is_canonical(Va(0x0000_7fff_ffff_ffff)));
        assert!(PAGING.is_canonical(Va(0xffff_8000_0000_0000)));
        assert!(!PAGING.is_canonical(Va(0x0000_8000_0000_0000)));
        assert!(!PAGING.is_canonical(Va(0xff00_0000_0000_0000)));
        assert!(Paging { levels: 5, ..PAGING }.is_canonical(Va(0xff00_0000_0000_0000)));
    }
}
