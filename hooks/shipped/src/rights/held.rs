//! Where a hook has taken something, so that it can give everything back at the end.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use vector14_hook::{Cr3, Guest, Va};

use super::{ALL, Leaf};

/// More pages than this are not taken. A page of a process that has ended counts until the end.
const MOST: usize = 16 * 1024;

/// Pages of address spaces. Locked where something is taken, which costs a flush as well, and where a tripwire goes off.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashSet<(u64, u64)>>);

impl Held {
    /// Notes a page before something is taken from it. False where there is no room for it.
    pub(crate) fn note(&self, cr3: Cr3, page: Va) -> bool {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cr3.root().0, page.0);
        pages.contains(&key) || (pages.len() < MOST && pages.insert(key))
    }

    /// Notes that a page has everything back.
    pub(crate) fn forget(&self, cr3: Cr3, page: Va) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(cr3.root().0, page.0));
    }

    /// Whether there is no room left.
    pub(crate) fn is_full(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() >= MOST
    }

    /// Gives back what is still taken. What an address space that is gone has left in memory is only taken for one where it leads
    /// to a marked entry all the same.
    pub(crate) fn give_back(&self, guest: &mut dyn Guest) {
        for (root, page) in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            guest.use_address_space(Cr3(root));
            if let Some(leaf) = Leaf::at(guest, Va(page)).filter(Leaf::lacks_any) {
                // An entry that can't be changed is outside of memory by now, or changes all the time: the guest has it.
                let _ = leaf.exchange(guest, &[], &ALL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Right;
    use super::*;
    use vector14_hook::Access;
    use vector14_hook::mock::MockGuest;

    #[test]
    fn everything_is_given_back_at_the_end_in_every_address_space() {
        let (held, mut guest, page) = (Held::default(), MockGuest::new(0), Va(0x1000));
        let spaces = [guest.address_space(), guest.new_address_space()];
        for (space, right) in spaces.into_iter().zip([Right::Present, Right::User]) {
            guest.use_address_space(space);
            guest.load(page, &[1], Access::all());
            assert!(held.note(space, page));
            Leaf::at(&guest, page).unwrap().exchange(&mut guest, &[right], &[]).unwrap();
        }
        held.give_back(&mut guest);
        for space in spaces {
            guest.use_address_space(space);
            assert_eq!(guest.translate(page).unwrap().access, Access::all());
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let held = Held::default();
        assert_eq!((0..MOST as u64 + 10).filter(|page| held.note(Cr3(0), Va(page << 12))).count(), MOST);
        assert!(held.is_full() && held.note(Cr3(0), Va(0)));
    }
}
