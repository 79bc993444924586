//! The guest's page tables, read as the CPU reads them, in every paging mode: none, 32-bit, PAE, 4 and 5 levels
//! (SDM vol. 3A, 4.1 to 4.5; APM vol. 2, 5.2 and 5.3).
//!
//! Pure: it takes the paging state and a way to read a table entry, and returns where an address leads. A walk visits
//! at most five entries, whatever they hold.
//!
//! # Layout
//! - `entry`: what an entry says, and how one is made, in each mode

mod entry;
#[cfg(test)]
mod tests;

use kvm_bindings::kvm_sregs;
use vector14_hook::{Access, Cr3, GuestError, PAGE_SIZE, Pa, Translation, Va};

use self::entry::{Link, NoEntry};

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

/// How a vCPU translates addresses at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// The page tables in force.
    pub cr3: Cr3,
    /// What their entries look like.
    pub mode: Mode,
    /// Whether bit 63 of an entry forbids execution (EFER.NXE); reserved otherwise.
    pub no_execute: bool,
}

/// The paging modes (SDM vol. 3A, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CR0.PG is clear: a linear address is a physical one.
    Off,
    /// Two levels of 4-byte entries.
    Bits32 {
        /// Whether a directory entry can map 4 MiB (CR4.PSE).
        large_pages: bool,
    },
    /// Three levels of 8-byte entries, of which the top one has four.
    Pae,
    /// 4 or 5 levels of 8-byte entries.
    Long {
        /// How many: 5 where CR4.LA57 is set.
        levels: u8,
    },
}

impl Mode {
    fn levels(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Bits32 { .. } => 2,
            Self::Pae => 3,
            Self::Long { levels } => levels,
        }
    }

    /// How many bits of an address choose an entry of a table, and the size of an entry, in bytes.
    fn geometry(self) -> (u32, u64) {
        match self {
            Self::Bits32 { .. } => (10, 4),
            Self::Off | Self::Pae | Self::Long { .. } => (9, 8),
        }
    }
}

impl Paging {
    /// The paging mode that these registers stand for.
    #[must_use]
    pub fn from_registers(sregs: &kvm_sregs) -> Self {
        let (cr0, cr4, efer) = (sregs.cr0, sregs.cr4, sregs.efer);
        let mode = match (cr0 & CR0_PG != 0, cr4 & CR4_PAE != 0, efer & EFER_LMA != 0) {
            (false, _, _) => Mode::Off,
            (true, _, true) => Mode::Long { levels: if cr4 & CR4_LA57 != 0 { 5 } else { 4 } },
            (true, true, false) => Mode::Pae,
            (true, false, false) => Mode::Bits32 { large_pages: cr4 & CR4_PSE != 0 },
        };
        // 4-byte entries have no bit 63, whatever EFER says.
        let wide = !matches!(mode, Mode::Bits32 { .. });
        Self { cr3: Cr3(sregs.cr3), mode, no_execute: wide && efer & EFER_NXE != 0 }
    }

    /// Whether `address` is one that can be translated at all: canonical in long mode, where all bits above the
    /// translated ones are equal, and below 4 GiB otherwise.
    #[must_use]
    pub fn is_canonical(&self, address: Va) -> bool {
        match self.mode {
            Mode::Off | Mode::Bits32 { .. } | Mode::Pae => u32::try_from(address.0).is_ok(),
            Mode::Long { levels } => {
                let unused = 64 - (12 + 9 * u32::from(levels));
                ((address.0 << unused).cast_signed() >> unused).cast_unsigned() == address.0
            }
        }
    }

    /// Walks the tables for `address`, reading words with `load`: 8 bytes each, at multiples of 8.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical or an entry with a reserved bit set, or what
    /// `load` returns for a table outside of memory. An entry that does not lead on is not an error but a [`Step`] of
    /// its own.
    pub fn walk(&self, address: Va, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Result<Step, GuestError> {
        if !self.is_canonical(address) {
            return Err(GuestError::Malformed(address));
        }
        let mut access = Access::all();
        let mut table = self.root();
        let (index_bits, entry_size) = self.mode.geometry();
        for level in (1..=self.mode.levels()).rev() {
            let shift = 12 + index_bits * u32::from(level - 1);
            let index = (address.0 >> shift) & ((1 << index_bits) - 1);
            let slot = table.offset(index * entry_size);
            let entry = self.entry_at(slot, &load)?;
            match self.link(entry, level) {
                Ok(Link::Table { at, rights }) => {
                    access &= rights;
                    table = at;
                }
                Ok(Link::Page { at, rights }) => {
                    let page_size = 1 << shift;
                    let address = Pa(at.0 | (address.0 & (page_size - 1)));
                    return Ok(Step::Leaf(Translation { address, page_size, access: access & rights }));
                }
                Err(NoEntry::Absent) => return Ok(Step::Absent { level, slot, entry }),
                Err(NoEntry::Reserved) => return Err(GuestError::Malformed(address)),
            }
        }
        match self.mode {
            Mode::Off => Ok(Step::Leaf(Translation { address: Pa(address.0), page_size: PAGE_SIZE, access })),
            Mode::Bits32 { .. } | Mode::Pae | Mode::Long { .. } => Err(GuestError::Malformed(address)),
        }
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

    /// The table that a walk begins at.
    fn root(&self) -> Pa {
        match self.mode {
            Mode::Bits32 { .. } => Pa(self.cr3.0 & 0xffff_f000),
            Mode::Pae => Pa(self.cr3.0 & 0xffff_ffe0),
            Mode::Off | Mode::Long { .. } => self.cr3.root(),
        }
    }

    fn entry_at(&self, slot: Pa, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Result<u64, GuestError> {
        let place = self.place(slot);
        Ok((load(place.word)? & place.mask) >> place.shift)
    }

    /// Where in memory the entry at `slot` is: all of a word, or one half of it.
    pub(crate) fn place(&self, slot: Pa) -> Place {
        let (shift, mask) = match self.mode {
            Mode::Bits32 { .. } if slot.0 & 4 == 0 => (0, 0xffff_ffff),
            Mode::Bits32 { .. } => (32, 0xffff_ffff << 32),
            Mode::Off | Mode::Pae | Mode::Long { .. } => (0, u64::MAX),
        };
        Place { word: Pa(slot.0 & !7), shift, mask }
    }
}

/// The bits of a word in memory that are a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A multiple of 8.
    pub(crate) word: Pa,
    pub(crate) shift: u32,
    pub(crate) mask: u64,
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
