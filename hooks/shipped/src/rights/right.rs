//! A right in a page-table entry, and the mark that says that it was taken.

use vector14_hook::EntryFlags;

/// What can be taken from a leaf. Each is the mark in the entry that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Right {
    /// R/W: writes fault, the kernel's too where CR0.WP is set.
    Write = 1 << 52,
    /// U/S: every access from user mode faults, and none of the kernel's.
    User = 1 << 53,
    /// XD was clear: fetches fault.
    Execute = 1 << 54,
    /// P: every access faults. The rest of the entry stays as it is.
    Present = 1 << 55,
    /// As `User`, for a [tripwire](super::set_tripwire).
    Tripwire = 1 << 56,
}

pub(super) const ALL: [Right; 5] = [Right::Write, Right::User, Right::Execute, Right::Present, Right::Tripwire];
/// The bits that marks are in.
pub(super) const MARKS: u64 = 0x1f << 52;

impl Right {
    pub(super) const fn mark(self) -> u64 {
        self as u64
    }

    /// The flag of the entry that the right consists of.
    const fn flag(self) -> u64 {
        match self {
            Self::Write => EntryFlags::WRITE.bits(),
            Self::User | Self::Tripwire => EntryFlags::USER.bits(),
            Self::Execute => EntryFlags::NO_EXECUTE.bits(),
            Self::Present => EntryFlags::PRESENT.bits(),
        }
    }

    /// Whether `entry` grants it.
    pub(super) const fn is_in(self, entry: u64) -> bool {
        (entry & self.flag() != 0) != matches!(self, Self::Execute)
    }

    /// Whether marks besides this right's leave room for it: `Present` is the only right that is taken from its entry.
    const fn fits(self, entry: u64) -> bool {
        match self {
            Self::Present => entry & MARKS & !self.mark() == 0,
            Self::Write | Self::User | Self::Execute | Self::Tripwire => Self::Present.is_in(entry),
        }
    }

    /// Whether it was taken from `entry`: a mark beside a right that is there is not ours. An absent entry needs a look at
    /// [`Held`](super::Held) besides.
    pub(super) const fn is_taken(self, entry: u64) -> bool {
        entry & self.mark() != 0 && !self.is_in(entry) && self.fits(entry)
    }

    /// `entry` without the right, where it can be taken.
    pub(super) const fn taken_from(self, entry: u64) -> u64 {
        if self.is_in(entry) && self.fits(entry) { (entry ^ self.flag()) | self.mark() } else { entry }
    }

    pub(super) const fn given_back_to(self, entry: u64) -> u64 {
        if self.is_taken(entry) { (entry ^ self.flag()) & !self.mark() } else { entry }
    }
}

/// `entry` with everything that was taken from it.
pub(super) fn restored(entry: u64) -> u64 {
    ALL.into_iter().fold(entry, |entry, right| right.given_back_to(entry))
}
