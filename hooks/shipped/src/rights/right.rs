//! The rights in a page-table entry, and the marks that record their removal.

use vector14_hook::EntryFlags;

/// A right that can be removed from a leaf. The value is its mark in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Right {
    /// R/W: without it writes fault, the kernel's too if CR0.WP is set.
    Write = 1 << 52,
    /// U/S: without it every access from user mode faults, and none from the kernel.
    User = 1 << 53,
    /// XD clear: without it (XD set) fetches fault.
    Execute = 1 << 54,
    /// P: without it every access faults. The rest of the entry is unchanged.
    Present = 1 << 55,
    /// U/S, removed for a [tripwire](super::set_tripwire).
    Tripwire = 1 << 56,
}

pub(super) const ALL: [Right; 5] = [Right::Write, Right::User, Right::Execute, Right::Present, Right::Tripwire];
/// The bits that hold marks.
pub(super) const MARKS: u64 = 0x1f << 52;

impl Right {
    pub(super) const fn mark(self) -> u64 {
        self as u64
    }

    /// The entry's flag for this right.
    const fn flag(self) -> u64 {
        match self {
            Self::Write => EntryFlags::WRITE.bits(),
            Self::User | Self::Tripwire => EntryFlags::USER.bits(),
            Self::Execute => EntryFlags::NO_EXECUTE.bits(),
            Self::Present => EntryFlags::PRESENT.bits(),
        }
    }

    /// Whether `entry` grants this right.
    const fn is_in(self, entry: u64) -> bool {
        (entry & self.flag() != 0) != matches!(self, Self::Execute)
    }

    /// Whether this right can be removed given the marks of others: `Present` can't be combined with other rights.
    const fn fits(self, entry: u64) -> bool {
        match self {
            Self::Present => entry & MARKS & !self.mark() == 0,
            Self::Write | Self::User | Self::Execute | Self::Tripwire => Self::Present.is_in(entry),
        }
    }

    /// Whether this right was removed from `entry`. If the mark is set but the right is granted, the mark is not ours.
    /// For an absent entry, also check [`Held`](super::Held).
    pub(super) const fn is_taken(self, entry: u64) -> bool {
        entry & self.mark() != 0 && !self.is_in(entry) && self.fits(entry)
    }

    /// `entry` without this right, if it can be removed.
    pub(super) const fn taken_from(self, entry: u64) -> u64 {
        if self.is_in(entry) && self.fits(entry) { (entry ^ self.flag()) | self.mark() } else { entry }
    }

    pub(super) const fn given_back_to(self, entry: u64) -> u64 {
        if self.is_taken(entry) { (entry ^ self.flag()) & !self.mark() } else { entry }
    }
}

/// `entry` with all removed rights restored.
pub(super) fn restored(entry: u64) -> u64 {
    ALL.into_iter().fold(entry, |entry, right| right.given_back_to(entry))
}
