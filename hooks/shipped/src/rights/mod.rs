//! Rights that a hook takes from a page of the guest's, so that accesses fault, and gives back.
//!
//! What was taken is written into the page-table entry itself, in bits 56:52: the CPU ignores them, and leaves them to software
//! (SDM vol. 3A, 4.5.4; APM vol. 2, 5.4.1). So there is no table on the host's side that vCPUs would share, a fork in the guest
//! copies the marks with the entry, and where the guest makes an entry anew its marks are gone, as they should be. A guest that
//! uses these bits itself can't be watched this way; Linux does not.
//!
//! - this file: a leaf, and what has been taken from it
//! - `held`: where something is taken, so that it can be given back at the end
//! - `fence`: pages that are watched, in which address space, and by which right
//! - `tripwire`: a fault right after the guest's own handler returns

mod fence;
mod held;
mod tripwire;

pub(crate) use fence::{Catch, Fence, PageRange, Space};
pub(crate) use held::Held;
pub(crate) use tripwire::{set_tripwire, spring_tripwire};
use vector14_hook::{Access, EntryFlags, ErrorCode, Guest, GuestError, Pa, Step, TableEntry, Va};

/// So often is a change of an entry tried that others change at the same time.
const TRIES: u32 = 1000;

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
    /// As `User`, for a [tripwire](set_tripwire).
    Tripwire = 1 << 56,
}

const ALL: [Right; 5] = [Right::Write, Right::User, Right::Execute, Right::Present, Right::Tripwire];

impl Right {
    const fn mark(self) -> u64 {
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
    const fn is_in(self, entry: u64) -> bool {
        (entry & self.flag() != 0) != matches!(self, Self::Execute)
    }

    /// Whether it was taken from `entry`: a mark beside a right that is there is not ours.
    const fn is_taken(self, entry: u64) -> bool {
        entry & self.mark() != 0 && !self.is_in(entry)
    }

    const fn taken_from(self, entry: u64) -> u64 {
        if self.is_in(entry) { (entry ^ self.flag()) | self.mark() } else { entry }
    }

    const fn given_back_to(self, entry: u64) -> u64 {
        if self.is_taken(entry) { (entry ^ self.flag()) & !self.mark() } else { entry }
    }
}

/// The leaf that maps a page, or did until it was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    page: Va,
    entry: TableEntry,
    /// What the levels above it allow.
    above: Access,
}

/// What is at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Leaf(Leaf),
    /// Nothing, in as many bytes around the address as one entry of this table level covers.
    Absent {
        level: u8,
    },
}

impl Leaf {
    /// Looks for the leaf that maps `page`. Tables that can't be walked are none of ours: nothing is mapped by them.
    pub(crate) fn find(guest: &dyn Guest, page: Va) -> Found {
        // Other modes than 64-bit and compatibility mode have no bits to spare in their entries.
        let Some(walk) = guest.walk(page).ok().filter(|walk| walk.entries().first().is_some_and(|top| top.level > 3))
        else {
            return Found::Absent { level: 1 };
        };
        let leaf = match walk.end() {
            Step::Leaf(_) => walk.entries().last().copied(),
            Step::Absent(entry) if entry.level == 1 && Right::Present.is_taken(entry.entry) => Some(entry),
            Step::Absent(entry) => return Found::Absent { level: entry.level },
            Step::Reserved(_) => None,
        };
        let Some(entry) = leaf else { return Found::Absent { level: 1 } };
        let tables = walk.entries().iter().filter(|table| table.level > entry.level);
        let above = tables.fold(Access::all(), |above, table| above & access(table.entry));
        Found::Leaf(Self { page, entry, above })
    }

    /// The same, where only a leaf will do.
    pub(crate) fn at(guest: &dyn Guest, page: Va) -> Option<Self> {
        match Self::find(guest, page) {
            Found::Leaf(leaf) => Some(leaf),
            Found::Absent { .. } => None,
        }
    }

    /// Level of the table that its entry is in: 1 is where 4 KiB are mapped.
    pub(crate) const fn level(&self) -> u8 {
        self.entry.level
    }

    /// Whether `right` is taken from it.
    pub(crate) const fn lacks(&self, right: Right) -> bool {
        right.is_taken(self.entry.entry)
    }

    /// Whether `right` is there to be taken.
    pub(crate) const fn has(&self, right: Right) -> bool {
        right.is_in(self.entry.entry)
    }

    /// Whether anything is taken from it.
    pub(crate) fn lacks_any(&self) -> bool {
        ALL.into_iter().any(|right| self.lacks(right))
    }

    /// Whether the CPU has written through it.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.entry.flags().contains(EntryFlags::DIRTY)
    }

    /// What the guest itself allows, at all levels together.
    pub(crate) fn guests_access(&self) -> Access {
        let entry = ALL.into_iter().fold(self.entry.entry, |entry, right| right.given_back_to(entry));
        access(entry) & self.above
    }

    /// Whether the guest itself allows an access that faulted with this error code. Accesses of the kernel's that SMEP, SMAP or
    /// CR0.WP decide about are not told from others.
    pub(crate) fn allows(&self, error_code: ErrorCode) -> bool {
        let has = |flag, access| !error_code.contains(flag) || self.guests_access().contains(access);
        !error_code.intersects(ErrorCode::RESERVED | ErrorCode::PROTECTION_KEY | ErrorCode::SHADOW_STACK)
            && has(ErrorCode::WRITE, Access::WRITE)
            && has(ErrorCode::USER, Access::USER)
            && has(ErrorCode::FETCH, Access::EXECUTE)
    }

    /// Takes `take` and gives back `give`, unless the guest has changed the entry meanwhile. True where it is another entry
    /// now; where something was taken, a flush is due.
    pub(crate) fn exchange(&self, guest: &mut dyn Guest, take: &[Right], give: &[Right]) -> Result<bool, GuestError> {
        let mut leaf = *self;
        for _ in 0..TRIES {
            let old = leaf.entry.entry;
            let new = give.iter().fold(old, |entry, right| right.given_back_to(entry));
            let new = take.iter().fold(new, |entry, right| right.taken_from(entry));
            if new == old {
                return Ok(false);
            }
            if guest.compare_exchange(leaf.entry.slot, old, new)? {
                return Ok(true);
            }
            let Some(now) = Self::at(guest, self.page) else { return Ok(false) };
            leaf = now;
        }
        Err(GuestError::Contended(self.page))
    }

    /// Notes in the entry what the CPU would have: the page was used, and maybe written.
    pub(crate) fn note_access(&self, guest: &mut dyn Guest, written: bool) -> Result<(), GuestError> {
        let used = EntryFlags::ACCESSED.bits() | if written { EntryFlags::DIRTY.bits() } else { 0 };
        let mut leaf = *self;
        for _ in 0..TRIES {
            let old = leaf.entry.entry;
            if old & used == used || guest.compare_exchange(leaf.entry.slot, old, old | used)? {
                return Ok(());
            }
            let Some(now) = Self::at(guest, self.page) else { return Ok(()) };
            leaf = now;
        }
        Err(GuestError::Contended(self.page))
    }

    /// Where `address` leads, if it is in this page of 4 KiB.
    pub(crate) const fn place(&self, address: Va) -> Pa {
        self.entry.frame().offset(address.page_offset())
    }
}

/// The rights that one entry grants.
fn access(entry: u64) -> Access {
    let mut access = Access::empty();
    access.set(Access::WRITE, Right::Write.is_in(entry));
    access.set(Access::USER, Right::User.is_in(entry));
    access.set(Access::EXECUTE, Right::Execute.is_in(entry));
    access
}

/// Whether a fault of user code is over already: another vCPU has given back what was missing, and the guest's next try succeeds.
pub(crate) fn is_over(guest: &dyn Guest, address: Va, error_code: ErrorCode) -> bool {
    error_code.contains(ErrorCode::PRESENT | ErrorCode::USER)
        && Leaf::at(guest, address.page()).is_some_and(|leaf| !leaf.lacks_any() && leaf.allows(error_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vector14_hook::mock::MockGuest;

    const PAGE: Va = Va(0x40_0000);

    fn leaf(access: Access) -> (MockGuest, Leaf) {
        let mut guest = MockGuest::new(0);
        guest.load(PAGE, &[1], access);
        let leaf = Leaf::at(&guest, PAGE).unwrap();
        (guest, leaf)
    }

    #[test]
    fn what_is_taken_is_gone_and_comes_back() {
        for right in ALL {
            let (mut guest, before) = leaf(Access::all());
            assert!(before.exchange(&mut guest, &[right], &[]).unwrap());
            let taken = Leaf::at(&guest, PAGE).unwrap();
            assert!(taken.lacks(right) && taken.lacks_any(), "{right:?}");
            assert_eq!(taken.guests_access(), Access::all(), "{right:?}");
            assert!(guest.translate(PAGE).map(|now| now.access) != Ok(Access::all()), "{right:?}");
            assert!(taken.exchange(&mut guest, &[], &[right]).unwrap());
            assert_eq!(Leaf::at(&guest, PAGE).unwrap().entry.entry, before.entry.entry, "{right:?}");
        }
    }

    #[test]
    fn what_the_guest_does_not_grant_is_not_taken() {
        let (mut guest, leaf) = leaf(Access::USER);
        assert!(!leaf.exchange(&mut guest, &[Right::Write, Right::Execute], &[]).unwrap());
        assert!(leaf.allows(ErrorCode::USER) && !leaf.allows(ErrorCode::USER | ErrorCode::WRITE));
        assert!(!leaf.allows(ErrorCode::PROTECTION_KEY));
    }

    #[test]
    fn an_entry_that_the_guest_makes_anew_has_nothing_taken() {
        let (mut guest, leaf) = leaf(Access::all());
        leaf.exchange(&mut guest, &[Right::User], &[]).unwrap();
        guest.protect(PAGE, Access::USER).unwrap();
        let now = Leaf::at(&guest, PAGE).unwrap();
        assert!(!now.lacks_any(), "a mark beside the right itself is stale");
        assert!(is_over(&guest, PAGE, ErrorCode::PRESENT | ErrorCode::USER));
    }

    #[test]
    fn the_cpu_s_own_notes_are_made() {
        let (mut guest, leaf) = leaf(Access::all());
        leaf.note_access(&mut guest, true).unwrap();
        assert!(Leaf::at(&guest, PAGE).unwrap().is_dirty());
    }
}
