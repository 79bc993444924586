//! Removes access rights from the guest's pages, so that accesses fault, and restores them.
//!
//! The page-table entry itself records what was removed, in bits 56:52, which the CPU ignores and leaves to software
//! (SDM vol. 3A, 4.5.4; APM vol. 2, 5.4.1). So a fork in the guest copies the marks with the entry, and if the guest
//! makes an entry anew, its marks are gone, as they should be. A guest that uses these bits itself can't be watched
//! this way.
//!
//! An absent entry belongs to the guest's kernel, whatever its bits: Linux stores the offset of a swapped page there.
//! Marks in an absent entry count only if the hook itself made this entry absent.
//!
//! - this file: a leaf, and what was removed from it; `right`: the rights that can be removed, and their marks
//! - `held`: the entries from which a right was removed, so that it can be restored
//! - `fence`: the watched pages, their address space, and the right that closes them
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

/// Compare-exchange attempts before giving up on an entry.
const TRIES: u32 = 1000;

/// The leaf that maps a page, or that did until the hook made it absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    page: Va,
    entry: TableEntry,
    /// The access rights that the levels above grant.
    above: Access,
}

/// What the page tables contain at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Leaf(Leaf),
    /// Nothing, in the whole area around the address that one entry of this table level covers.
    Absent {
        level: u8,
    },
}

impl Leaf {
    /// Finds the leaf that maps `page`, or that did until `held` made it absent. Tables that can't be walked map
    /// nothing.
    pub(crate) fn find(guest: &dyn Guest, held: &Held, page: Va) -> Found {
        // Only entries of long mode have bits to spare.
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
        let above = tables.fold(Access::all(), |above, table| above & table.flags().access());
        Found::Leaf(Self { page, entry, above })
    }

    /// The leaf of `page`, if there is one.
    pub(crate) fn at(guest: &dyn Guest, held: &Held, page: Va) -> Option<Self> {
        match Self::find(guest, held, page) {
            Found::Leaf(leaf) => Some(leaf),
            Found::Absent { .. } => None,
        }
    }

    /// Level of the table that holds the entry; level 1 maps 4 KiB.
    pub(crate) const fn level(&self) -> u8 {
        self.entry.level
    }

    /// Whether `right` is removed from this leaf.
    pub(crate) const fn lacks(&self, right: Right) -> bool {
        right.is_taken(self.entry.entry)
    }

    /// Whether any right is removed from this leaf.
    pub(crate) fn lacks_any(&self) -> bool {
        restored(self.entry.entry) != self.entry.entry
    }

    /// Whether the leaf is dirty.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.entry.flags().contains(EntryFlags::DIRTY)
    }

    /// The access rights that the guest itself grants, at all levels together.
    pub(crate) fn guests_access(&self) -> Access {
        EntryFlags::from_bits_truncate(restored(self.entry.entry)).access() & self.above
    }

    /// Whether the guest itself allows an access that faulted with this error code. For kernel accesses, SMEP, SMAP and
    /// CR0.WP are not considered.
    pub(crate) fn allows(&self, error_code: ErrorCode) -> bool {
        let has = |flag, access| !error_code.contains(flag) || self.guests_access().contains(access);
        !error_code.intersects(ErrorCode::RESERVED | ErrorCode::PROTECTION_KEY | ErrorCode::SHADOW_STACK)
            && has(ErrorCode::WRITE, Access::WRITE)
            && has(ErrorCode::USER, Access::USER)
            && has(ErrorCode::FETCH, Access::EXECUTE)
    }

    /// Removes the rights `take`, if `held` has room, and restores the rights `give`. Returns whether the entry was
    /// changed; if a right was removed, a flush is due. Also returns false if the guest has replaced the entry, or
    /// keeps changing it.
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

    /// Sets A, and D for a write, as the CPU would have.
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

    /// The physical address for `address`, which is in this 4 KiB page.
    pub(crate) const fn place(&self, address: Va) -> Pa {
        self.entry.frame().offset(address.page_offset())
    }
}

/// Whether a fault of user code is already resolved: another vCPU has restored the missing right, and a retry succeeds.
pub(crate) fn is_over(guest: &dyn Guest, held: &Held, address: Va, error_code: ErrorCode) -> bool {
    error_code.contains(ErrorCode::PRESENT | ErrorCode::USER)
        && Leaf::at(guest, held, address.page()).is_some_and(|leaf| !leaf.lacks_any() && leaf.allows(error_code))
}

#[cfg(test)]
mod tests;
