//! Rights that a hook takes from a page of the guest's, so that accesses fault, and gives back.
//!
//! What was taken is written into the page-table entry itself, in bits 56:52: the CPU ignores them, and leaves them to software
//! (SDM vol. 3A, 4.5.4; APM vol. 2, 5.4.1). So a fork in the guest copies the marks with the entry, and where the guest makes an
//! entry anew its marks are gone, as they should be. A guest that uses these bits itself can't be watched this way.
//!
//! An entry without P belongs to the guest's kernel, whatever its bits: Linux has the offset of a swapped page there. Marks count
//! in it only where the hook has made this very entry absent itself.
//!
//! - this file: a leaf, and what has been taken from it; `right`: what can be taken, and the mark for it
//! - `held`: the entries from which something is taken, so that it can be given back
//! - `fence`: pages that are watched, in which address space, and by which right
//! - `tripwire`: a fault right after the guest's own handler returns

mod fence;
mod held;
mod right;
mod tripwire;

pub(crate) use fence::{Catch, Fence, PageRange, Space};
pub(crate) use held::Held;
pub(crate) use right::Right;
use right::restored;
pub(crate) use tripwire::{set_tripwire, spring_tripwire};
use vector14_hook::{Access, EntryFlags, ErrorCode, Guest, Pa, Step, TableEntry, Va};

/// Attempts to change an entry that others change at the same time.
const TRIES: u32 = 1000;

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
    /// Looks for the leaf that maps `page`, or did until `held` made it absent. Tables that can't be walked map nothing.
    pub(crate) fn find(guest: &dyn Guest, held: &Held, page: Va) -> Found {
        // Other modes than 64-bit and compatibility mode have no bits to spare in their entries.
        let Some(walk) = guest.walk(page).ok().filter(|walk| walk.entries().first().is_some_and(|top| top.level > 3))
        else {
            return Found::Absent { level: 1 };
        };
        let leaf = match walk.end() {
            Step::Leaf(_) => walk.entries().last().copied(),
            Step::Absent(entry) if entry.level == 1 && held.made_absent(entry) => Some(entry),
            Step::Absent(entry) => return Found::Absent { level: entry.level },
            Step::Reserved(_) => None,
        };
        let Some(entry) = leaf else { return Found::Absent { level: 1 } };
        let tables = walk.entries().iter().filter(|table| table.level > entry.level);
        let above = tables.fold(Access::all(), |above, table| above & access(table.entry));
        Found::Leaf(Self { page, entry, above })
    }

    /// The same, where only a leaf will do.
    pub(crate) fn at(guest: &dyn Guest, held: &Held, page: Va) -> Option<Self> {
        match Self::find(guest, held, page) {
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

    /// Whether anything is taken from it.
    pub(crate) fn lacks_any(&self) -> bool {
        restored(self.entry.entry) != self.entry.entry
    }

    /// Whether the CPU has written through it.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.entry.flags().contains(EntryFlags::DIRTY)
    }

    /// What the guest itself allows, at all levels together.
    pub(crate) fn guests_access(&self) -> Access {
        access(restored(self.entry.entry)) & self.above
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

    /// Takes `take`, as far as `held` has room, and gives back `give`. True where the entry has changed; where something was taken,
    /// a flush is due. False also where the guest has another entry there by now, or keeps it from being changed.
    pub(crate) fn exchange(&self, guest: &mut dyn Guest, held: &Held, take: &[Right], give: &[Right]) -> bool {
        let mut leaf = *self;
        for _ in 0..TRIES {
            let old = leaf.entry;
            let given = give.iter().fold(old.entry, |entry, right| right.given_back_to(entry));
            let taken = take.iter().fold(given, |entry, right| right.taken_from(entry));
            let new = if taken == given || held.has_room(old) { taken } else { given };
            if new == old.entry {
                return false;
            }
            match held.replace(guest, old, new) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => break,
            }
            let Some(now) = Self::at(guest, held, self.page) else { return false };
            leaf = now;
        }
        held.count_refusal();
        false
    }

    /// Notes in the entry what the CPU would have: the page was used, and maybe written.
    pub(crate) fn note_access(&self, guest: &mut dyn Guest, held: &Held, written: bool) {
        let used = EntryFlags::ACCESSED.bits() | if written { EntryFlags::DIRTY.bits() } else { 0 };
        let mut leaf = *self;
        for _ in 0..TRIES {
            let old = leaf.entry.entry;
            if old & used == used {
                return;
            }
            match guest.compare_exchange(leaf.entry.slot, old, old | used) {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => break,
            }
            let Some(now) = Self::at(guest, held, self.page) else { return };
            leaf = now;
        }
        held.count_refusal();
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
pub(crate) fn is_over(guest: &dyn Guest, held: &Held, address: Va, error_code: ErrorCode) -> bool {
    error_code.contains(ErrorCode::PRESENT | ErrorCode::USER)
        && Leaf::at(guest, held, address.page()).is_some_and(|leaf| !leaf.lacks_any() && leaf.allows(error_code))
}

#[cfg(test)]
mod tests;
