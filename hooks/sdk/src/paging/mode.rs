//! The paging modes (SDM vol. 3A, 4.1.1), and the addresses of their entries in memory.

use crate::{Cr3, Pa, Va};

/// The frame's address bits in a 4-byte entry, and in CR3 with such entries.
pub(super) const FRAME_32: u64 = 0xffff_f000;

/// A paging mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CR0.PG is clear: linear addresses are physical addresses.
    Off,
    /// Two levels of 4-byte entries.
    Bits32 {
        /// Whether an entry of the upper level can map 4 MiB (CR4.PSE).
        large_pages: bool,
    },
    /// Three levels of 8-byte entries; the top level has four entries.
    Pae,
    /// 4 or 5 levels of 8-byte entries, in long mode.
    Long {
        /// The number of levels: 5 if CR4.LA57 is set, else 4.
        levels: u8,
    },
}

/// Long mode with 4 levels, which nearly every guest uses.
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

    /// Number of address bits that index a table.
    fn index_bits(self) -> u32 {
        match self {
            Self::Bits32 { .. } => 10,
            Self::Off | Self::Pae | Self::Long { .. } => 9,
        }
    }

    /// The `shift` of a level: an entry of that level maps `1 << shift` bytes.
    pub(super) fn shift(self, level: u8) -> u32 {
        12 + self.index_bits() * u32::from(level - 1)
    }

    /// Address of the top-level table.
    pub(super) fn root(self, cr3: Cr3) -> Pa {
        match self {
            Self::Bits32 { .. } => Pa(cr3.0 & FRAME_32),
            Self::Pae => Pa(cr3.0 & 0xffff_ffe0),
            Self::Off | Self::Long { .. } => cr3.root(),
        }
    }

    /// Address of the entry for `address`, in a table whose entries map `1 << shift` bytes.
    pub(super) fn slot(self, table: Pa, address: Va, shift: u32) -> Pa {
        let index = (address.0 >> shift) & ((1 << self.index_bits()) - 1);
        let size = match self {
            Self::Bits32 { .. } => 4,
            Self::Off | Self::Pae | Self::Long { .. } => 8,
        };
        table.offset(index * size)
    }

    /// The word and the part of it that hold the entry at `slot`.
    pub(super) fn place(self, slot: Pa) -> Place {
        let part = match self {
            Self::Bits32 { .. } if slot.0 & 4 == 0 => Part::Low,
            Self::Bits32 { .. } => Part::High,
            Self::Off | Self::Pae | Self::Long { .. } => Part::Whole,
        };
        Place { word: Pa(slot.0 & !7), part }
    }
}

/// The place of a page-table entry in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest-physical address of the 8-byte word that holds the entry, a multiple of 8.
    pub word: Pa,
    /// Which part of the word the entry takes.
    pub part: Part,
}

/// The part of an 8-byte word that a page-table entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole word: an 8-byte entry.
    Whole,
    /// The lower half: a 4-byte entry.
    Low,
    /// The upper half: a 4-byte entry.
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

    /// `word` with its entry replaced by `entry`.
    #[must_use]
    pub const fn replace(self, word: u64, entry: u64) -> u64 {
        match self {
            Self::Whole => entry,
            Self::Low => (word & !0xffff_ffff) | (entry & 0xffff_ffff),
            Self::High => (word & 0xffff_ffff) | entry << 32,
        }
    }
}

/// The paging state of a vCPU at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// The root of the current page tables.
    pub cr3: Cr3,
    /// The paging mode, which decides the format of entries.
    pub mode: Mode,
    /// Whether bit 63 of an entry forbids execution (EFER.NXE). If not, the bit is reserved.
    pub no_execute: bool,
}

impl Paging {
    /// Whether `address` can be translated at all. In long mode it must be canonical; in other modes it must be below 4 GiB.
    #[must_use]
    #[inline]
    pub fn is_canonical(&self, address: Va) -> bool {
        match self.mode {
            Mode::Off | Mode::Bits32 { .. } | Mode::Pae => u32::try_from(address.0).is_ok(),
            Mode::Long { levels } => address.is_canonical(levels),
        }
    }
}
