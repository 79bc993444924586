//! The paging modes (SDM vol. 3A, 4.1.1), and where in memory the entries of each are.

use crate::{Cr3, Pa, Va};

/// The paging modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CR0.PG is clear: a linear address is a physical one.
    Off,
    /// Two levels of 4-byte entries.
    Bits32 {
        /// Whether an entry of the upper level can map 4 MiB (CR4.PSE).
        large_pages: bool,
    },
    /// Three levels of 8-byte entries, of which the top one has four.
    Pae,
    /// 4 or 5 levels of 8-byte entries, in long mode.
    Long {
        /// How many: 5 where CR4.LA57 is set.
        levels: u8,
    },
}

/// What nearly every guest is in.
impl Default for Mode {
    fn default() -> Self {
        Self::Long { levels: 4 }
    }
}

impl Mode {
    pub(super) fn levels(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Bits32 { .. } => 2,
            Self::Pae => 3,
            Self::Long { levels } => levels,
        }
    }

    /// How many bits of an address choose an entry of a table.
    fn index_bits(self) -> u32 {
        match self {
            Self::Bits32 { .. } => 10,
            Self::Off | Self::Pae | Self::Long { .. } => 9,
        }
    }

    /// An entry of this level maps `1 << shift` bytes.
    pub(super) fn shift(self, level: u8) -> u32 {
        12 + self.index_bits() * u32::from(level - 1)
    }

    /// The table that a walk begins at.
    pub(super) fn root(self, cr3: Cr3) -> Pa {
        match self {
            Self::Bits32 { .. } => Pa(cr3.0 & 0xffff_f000),
            Self::Pae => Pa(cr3.0 & 0xffff_ffe0),
            Self::Off | Self::Long { .. } => cr3.root(),
        }
    }

    /// The entry for `address` in a table whose entries map `1 << shift` bytes.
    pub(super) fn slot(self, table: Pa, address: Va, shift: u32) -> Pa {
        let index = (address.0 >> shift) & ((1 << self.index_bits()) - 1);
        let size = match self {
            Self::Bits32 { .. } => 4,
            Self::Off | Self::Pae | Self::Long { .. } => 8,
        };
        table.offset(index * size)
    }

    /// Where the entry at `slot` is.
    pub(super) fn place(self, slot: Pa) -> Place {
        let part = match self {
            Self::Bits32 { .. } if slot.0 & 4 == 0 => Part::Low,
            Self::Bits32 { .. } => Part::High,
            Self::Off | Self::Pae | Self::Long { .. } => Part::Whole,
        };
        Place { word: Pa(slot.0 & !7), part }
    }
}

/// Where in memory a page-table entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address of the 8 bytes that it lies in, a multiple of 8.
    pub word: Pa,
    /// Which of them it is.
    pub part: Part,
}

/// An entry has 8 bytes, or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of a word.
    Whole,
    /// Its lower half.
    Low,
    /// Its upper half.
    High,
}

impl Part {
    /// The entry in `word`.
    #[must_use]
    pub const fn of(self, word: u64) -> u64 {
        match self {
            Self::Whole => word,
            Self::Low => word & 0xffff_ffff,
            Self::High => word >> 32,
        }
    }

    /// `word` with another entry in it.
    #[must_use]
    pub const fn replace(self, word: u64, entry: u64) -> u64 {
        match self {
            Self::Whole => entry,
            Self::Low => (word & !0xffff_ffff) | (entry & 0xffff_ffff),
            Self::High => (word & 0xffff_ffff) | entry << 32,
        }
    }
}
