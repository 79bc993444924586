//! The guest's page tables, read as the CPU reads them: 4 and 5 levels, leaves of 4 KiB, 2 MiB and 1 GiB
//! (SDM vol. 3A, 4.5; APM vol. 2, 5.3), and changed as a kernel would change them.
//!
//! Pure: it takes the paging state and a way to reach a table entry. A walk visits at most five entries, whatever they hold.
//! The VM and the mock guest share it; a hook meets its types in what [`Guest`](crate::Guest) returns.

use crate::{Cr3, GuestError, PAGE_SIZE, Pa, Va};

bitflags::bitflags! {
    /// Rights of a mapping, as the product of all levels of a walk grants them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// R/W set at every level.
        const WRITE = 1 << 0;
        /// U/S set at every level.
        const USER = 1 << 1;
        /// XD clear at every level (or EFER.NXE off).
        const EXECUTE = 1 << 2;
    }
}

bitflags::bitflags! {
    /// The flags of a page-table entry (SDM vol. 3A, tables 4-15 to 4-20).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EntryFlags: u64 {
        /// P: the entry leads on.
        const PRESENT = 1 << 0;
        /// R/W: writes are allowed.
        const WRITE = 1 << 1;
        /// U/S: user mode is allowed.
        const USER = 1 << 2;
        /// PWT.
        const WRITE_THROUGH = 1 << 3;
        /// PCD.
        const CACHE_DISABLE = 1 << 4;
        /// A: the CPU has used it.
        const ACCESSED = 1 << 5;
        /// D: the CPU has written through it. Leaves only.
        const DIRTY = 1 << 6;
        /// PS: a leaf above level 1. In a leaf of level 1 this bit is PAT.
        const LARGE = 1 << 7;
        /// G: the translation outlives a change of CR3. Leaves only.
        const GLOBAL = 1 << 8;
        /// XD: instruction fetches are forbidden, where EFER.NXE is set; reserved otherwise.
        const NO_EXECUTE = 1 << 63;
    }
}

const PRESENT: u64 = EntryFlags::PRESENT.bits();
const WRITE: u64 = EntryFlags::WRITE.bits();
const USER: u64 = EntryFlags::USER.bits();
const PAGE_SIZE_BIT: u64 = EntryFlags::LARGE.bits();
const NO_EXECUTE: u64 = EntryFlags::NO_EXECUTE.bits();
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const MOST_LEVELS: usize = 5;
/// So often is a change of an entry tried that others change at the same time.
const TRIES: u32 = 1000;

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address that the virtual address stands for.
    pub address: Pa,
    /// Size of the leaf page that maps it, in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// What the mapping allows.
    pub access: Access,
}

/// A leaf as it was before it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte of the frame.
    pub frame: Pa,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// What all levels together allowed.
    pub access: Access,
    /// Whether the CPU had written through it.
    pub dirty: bool,
    /// Guest-physical address of the leaf's entry.
    pub slot: Pa,
    /// The entry, as it was.
    pub entry: u64,
}

/// A page-table entry on the way to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableEntry {
    /// Level of the table that holds the entry: 1 is the one whose entries map 4 KiB.
    pub level: u8,
    /// Guest-physical address of the entry.
    pub slot: Pa,
    /// The entry.
    pub entry: u64,
}

impl TableEntry {
    /// Its flags.
    #[must_use]
    pub const fn flags(&self) -> EntryFlags {
        EntryFlags::from_bits_truncate(self.entry)
    }

    /// The frame, or the next table, that it points to.
    #[must_use]
    pub const fn frame(&self) -> Pa {
        Pa(self.entry & FRAME)
    }
}

/// A walk, entry by entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    entries: [TableEntry; MOST_LEVELS],
    count: u8,
    end: Step,
}

impl Walk {
    /// A walk that was made elsewhere; of its entries the first five count.
    pub(crate) fn new(entries: &[TableEntry], end: Step) -> Self {
        let mut walk = Self { entries: Default::default(), count: 0, end };
        for (slot, entry) in walk.entries.iter_mut().zip(entries) {
            *slot = *entry;
            walk.count += 1;
        }
        walk
    }

    /// The entries that were read, from the top-level table down.
    #[must_use]
    pub fn entries(&self) -> &[TableEntry] {
        &self.entries[..usize::from(self.count)]
    }

    /// Where it ended.
    #[must_use]
    pub const fn end(&self) -> Step {
        self.end
    }
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At a leaf.
    Leaf(Translation),
    /// At an entry without P.
    Absent(TableEntry),
    /// At an entry with a reserved bit.
    Reserved(TableEntry),
}

/// Memory in which page tables are.
pub trait Tables {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn load(&self, slot: Pa) -> Result<u64, GuestError>;

    /// Replaces an entry that still is `current`. `Ok(false)`: it is another by now.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn replace(&self, slot: Pa, current: u64, new: u64) -> Result<bool, GuestError>;

    /// Takes a zeroed page for a table.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`].
    fn allocate_table(&self) -> Result<Pa, GuestError>;

    /// Gives a page back that was taken for a table and not used.
    fn free_table(&self, table: Pa);
}

/// How a vCPU in long mode translates addresses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// The page tables in force.
    pub cr3: Cr3,
    /// Levels of the tables: 4 or 5.
    pub levels: u8,
    /// Whether bit 63 of an entry forbids execution (EFER.NXE); reserved otherwise.
    pub no_execute: bool,
}

impl Paging {
    /// Whether `address` is canonical: all bits above the translated ones are equal.
    #[must_use]
    pub fn is_canonical(&self, address: Va) -> bool {
        let unused = 64 - (12 + 9 * u32::from(self.levels));
        ((address.0 << unused).cast_signed() >> unused).cast_unsigned() == address.0
    }

    /// Walks the tables for `address`, reading entries with `load` and showing each to `visit`.
    fn descend(
        &self,
        address: Va,
        load: impl Fn(Pa) -> Result<u64, GuestError>,
        mut visit: impl FnMut(TableEntry),
    ) -> Result<Step, GuestError> {
        if !self.is_canonical(address) {
            return Err(GuestError::Malformed(address));
        }
        let mut access = Access::all();
        let mut table = self.cr3.root();
        for level in (1..=self.levels).rev() {
            let shift = 12 + 9 * u32::from(level - 1);
            let slot = table.offset(((address.0 >> shift) & 0x1ff) * 8);
            let entry = load(slot)?;
            let here = TableEntry { level, slot, entry };
            visit(here);
            if entry & PRESENT == 0 {
                return Ok(Step::Absent(here));
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
                return Ok(Step::Reserved(here));
            }
            let frame = entry & FRAME & !(page_size - 1);
            let address = Pa(frame | (address.0 & (page_size - 1)));
            return Ok(Step::Leaf(Translation { address, page_size, access }));
        }
        Err(GuestError::Malformed(address))
    }

    /// Walks the tables for `address`, reading entries with `load`.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical, or what `load` returns for a table outside of
    /// memory. An entry that does not lead on is not an error but a [`Step`] of its own.
    pub fn walk(&self, address: Va, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Result<Walk, GuestError> {
        let (mut entries, mut count) = ([TableEntry::default(); MOST_LEVELS], 0);
        let end = self.descend(address, load, |entry| {
            entries[usize::from(count)] = entry;
            count += 1;
        })?;
        Ok(Walk { entries, count, end })
    }

    /// Where `address` leads.
    ///
    /// # Errors
    /// As [`Paging::walk`], [`GuestError::NotMapped`] for an entry that is not present, and [`GuestError::Malformed`] for one
    /// with a reserved bit.
    pub fn translate(
        &self,
        address: Va,
        load: impl Fn(Pa) -> Result<u64, GuestError>,
    ) -> Result<Translation, GuestError> {
        match self.descend(address, load, |_| ())? {
            Step::Leaf(translation) => Ok(translation),
            Step::Absent(_) => Err(GuestError::NotMapped(address)),
            Step::Reserved(_) => Err(GuestError::Malformed(address)),
        }
    }

    /// Maps the page at `page` to `frame`, and returns where the leaf's entry is.
    ///
    /// # Errors
    /// As [`Guest::map`](crate::Guest::map).
    pub fn map(&self, tables: &impl Tables, page: Va, frame: Pa, access: Access) -> Result<Pa, GuestError> {
        for address in [page.0, frame.0] {
            if address % PAGE_SIZE != 0 {
                return Err(GuestError::Unaligned(address));
            }
        }
        // A round a level at the most: each one either fills the entry where the walk ended or finds that another
        // vCPU has done so.
        for _ in 0..=2 * self.levels {
            let absent = match self.descend(page, |slot| tables.load(slot), |_| ())? {
                Step::Leaf(_) => return Err(GuestError::AlreadyMapped(page)),
                Step::Reserved(_) => return Err(GuestError::Malformed(page)),
                Step::Absent(absent) => absent,
            };
            if absent.level == 1 {
                if tables.replace(absent.slot, absent.entry, self.leaf_entry(frame, access))? {
                    return Ok(absent.slot);
                }
            } else {
                let table = tables.allocate_table()?;
                if !tables.replace(absent.slot, absent.entry, Self::table_entry(table))? {
                    tables.free_table(table);
                }
            }
        }
        Err(GuestError::AlreadyMapped(page))
    }

    /// Makes the leaf that maps `page` absent.
    ///
    /// # Errors
    /// As [`Guest::unmap`](crate::Guest::unmap).
    pub fn unmap(&self, tables: &impl Tables, page: Va) -> Result<Mapping, GuestError> {
        self.change(tables, page, |_| 0)
    }

    /// Gives the leaf that maps `page` the rights `access`.
    ///
    /// # Errors
    /// As [`Guest::protect`](crate::Guest::protect).
    pub fn protect(&self, tables: &impl Tables, page: Va, access: Access) -> Result<Mapping, GuestError> {
        let rights = self.leaf_entry(Pa(0), access);
        self.change(tables, page, |entry| (entry & !(WRITE | USER | NO_EXECUTE)) | rights)
    }

    /// Replaces the leaf that maps `page` by what `change` makes of it. The CPU sets A and D at any time, other vCPUs may do
    /// anything: it is tried anew where somebody came between, but not for ever.
    fn change(&self, tables: &impl Tables, page: Va, change: impl Fn(u64) -> u64) -> Result<Mapping, GuestError> {
        for _ in 0..TRIES {
            let mut leaf = TableEntry::default();
            let Translation { address, page_size, access } =
                match self.descend(page, |slot| tables.load(slot), |entry| leaf = entry)? {
                    Step::Leaf(translation) => translation,
                    Step::Absent(_) => return Err(GuestError::NotMapped(page)),
                    Step::Reserved(_) => return Err(GuestError::Malformed(page)),
                };
            if tables.replace(leaf.slot, leaf.entry, change(leaf.entry))? {
                let frame = Pa(address.0 & !(page_size - 1));
                let dirty = leaf.flags().contains(EntryFlags::DIRTY);
                return Ok(Mapping { frame, page_size, access, dirty, slot: leaf.slot, entry: leaf.entry });
            }
        }
        Err(GuestError::Contended(page))
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
        let walk = PAGING.walk(Va(8 << 30), &load).unwrap();
        assert_eq!(walk.end(), Step::Absent(TableEntry { level: 3, slot: Pa(0x2040), entry: 0 }));
        assert_eq!(walk.entries()[0], TableEntry { level: 4, slot: Pa(0x1000), entry: 0x2000 | ALL });
        assert_eq!(walk.entries().len(), 2);
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
