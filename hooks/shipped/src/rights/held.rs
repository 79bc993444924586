//! The page-table entries from which a hook has removed rights, so that all rights can be restored at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vector14_hook::{EntryFlags, FRAME, Guest, GuestError, Pa, TableEntry};

use super::right::{MARKS, restored};
use super::{Right, TRIES};

/// Maximum number of entries from which rights are removed. Entries of ended processes count too.
const MOST: usize = 16 * 1024;
/// Bits that neither the CPU nor a kernel changes without making the entry anew. A and D come and go, and a fork clears
/// R/W.
const LASTING: u64 =
    FRAME | MARKS | EntryFlags::PRESENT.bits() | EntryFlags::USER.bits() | EntryFlags::NO_EXECUTE.bits();

/// Entries by their own address, whatever address spaces lead to them, each as the hook left it.
///
/// Locked while an entry is changed, and to check whether the hook made an absent entry absent.
#[derive(Default)]
pub(crate) struct Held {
    entries: Mutex<HashMap<Pa, u64>>,
    refusals: AtomicU64,
}

impl Held {
    /// Whether a right may be removed from this entry.
    pub(super) fn has_room(&self, entry: TableEntry) -> bool {
        let entries = self.lock();
        entries.len() < MOST || entries.contains_key(&entry.slot)
    }

    /// Replaces an entry if it equals `old`, and records what is now removed from it. Returns `Ok(false)` if it has
    /// changed.
    pub(super) fn replace(&self, guest: &mut dyn Guest, old: TableEntry, new: u64) -> Result<bool, GuestError> {
        // Hold the lock, so that a vCPU that faults on the new entry waits until it is recorded.
        let mut entries = self.lock();
        if !guest.compare_exchange(old.slot, old.entry, new)? {
            return Ok(false);
        }
        if restored(new) == new {
            entries.remove(&old.slot);
        } else {
            entries.insert(old.slot, new);
        }
        Ok(true)
    }

    /// Whether the hook made this absent entry absent.
    pub(super) fn made_absent(&self, entry: TableEntry) -> bool {
        Right::Present.is_taken(entry.entry)
            && self.lock().get(&entry.slot).is_some_and(|left| is_as_left(entry.entry, *left))
    }

    /// Counts an entry that can't be changed.
    #[cold]
    pub(super) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    /// Restores all rights that are still removed. Skips entries that the guest has made anew, and entries whose table
    /// has become something else.
    pub(crate) fn give_back(&self, guest: &mut dyn Guest) {
        for (slot, left) in self.lock().drain() {
            for _ in 0..TRIES {
                let mut bytes = [0; 8];
                let read = guest.read_physical(slot, &mut bytes);
                let now = u64::from_le_bytes(bytes);
                if read.is_err() || !is_as_left(now, left) {
                    break;
                }
                if guest.compare_exchange(slot, now, restored(now)) != Ok(false) {
                    break;
                }
            }
        }
    }

    /// Warnings about what could not be done.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.lock().len() >= MOST {
            warnings.push(format!(
                "rights were removed from {MOST} pages, the maximum; accesses to further pages were not seen"
            ));
        }
        let refusals = self.refusals.load(Relaxed);
        if refusals > 0 {
            warnings
                .push(format!("{refusals} changes of page-table entries failed, because the guest kept changing them"));
        }
        warnings
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pa, u64>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the entry is still the one that was `left`, and not made anew by the guest.
const fn is_as_left(entry: u64, left: u64) -> bool {
    (entry ^ left) & LASTING == 0
}

#[cfg(test)]
mod tests {
    use super::super::Leaf;
    use super::*;
    use vector14_hook::mock::MockGuest;
    use vector14_hook::{Access, Va};

    const PAGE: Va = Va(0x1000);

    #[test]
    fn everything_is_given_back_at_the_end_in_every_address_space() {
        let (held, mut guest) = (Held::default(), MockGuest::new(0));
        let spaces = [guest.address_space(), guest.new_address_space()];
        for (space, right) in spaces.into_iter().zip([Right::Present, Right::User]) {
            guest.use_address_space(space);
            guest.load(PAGE, &[1], Access::all());
            assert!(Leaf::at(&guest, &held, PAGE).unwrap().exchange(&mut guest, &held, &[right], &[]));
        }
        held.give_back(&mut guest);
        for space in spaces {
            guest.use_address_space(space);
            assert_eq!(guest.translate(PAGE).unwrap().access, Access::all());
        }
    }

    #[test]
    fn what_has_become_of_the_tables_of_a_dead_address_space_is_left_alone() {
        let (held, mut guest) = (Held::default(), MockGuest::new(0));
        guest.load(PAGE, &[1], Access::all());
        assert!(Leaf::at(&guest, &held, PAGE).unwrap().exchange(&mut guest, &held, &[Right::User], &[]));
        let walk = guest.walk(PAGE).unwrap();
        let [top, .., leaf] = walk.entries() else { panic!("{walk:?}") };
        // Another process has the top-level table now, and the table of the leaf is data.
        let other = guest.new_address_space();
        guest.use_address_space(other);
        guest.load(PAGE, &[2], Access::all());
        assert!(Leaf::at(&guest, &Held::default(), PAGE).unwrap().exchange(
            &mut guest,
            &Held::default(),
            &[Right::User],
            &[]
        ));
        let theirs = guest.walk(PAGE).unwrap();
        guest.compare_exchange(top.slot, top.entry, theirs.entries()[0].entry).unwrap();
        let data = leaf.entry ^ 1 << 12;
        guest.compare_exchange(leaf.slot, leaf.entry, data).unwrap();
        held.give_back(&mut guest);
        assert_eq!(guest.walk(PAGE).unwrap(), theirs);
        let mut now = [0; 8];
        guest.read_physical(leaf.slot, &mut now).unwrap();
        assert_eq!(u64::from_le_bytes(now), data);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (held, mut guest) = (Held::default(), MockGuest::new(0));
        let entry = |index: u64| TableEntry { level: 1, slot: Pa(index * 8), entry: 0 };
        let taken = Right::User.taken_from(0x7);
        let kept = (0..MOST as u64 + 10)
            .map(entry)
            .take_while(|entry| held.has_room(*entry) && held.replace(&mut guest, *entry, taken) == Ok(true));
        assert_eq!(kept.count(), MOST);
        assert!(held.has_room(entry(0)), "it has its place");
        assert_eq!(held.warnings().len(), 1);
    }
}
