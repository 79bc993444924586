//! Host-owned guest-physical pages: whose each is, where it is mapped, and which are free.
//!
//! Hooks take pages on the fault's path, so nothing here locks or allocates once the pool is made.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use vector14_hook::paging::{Part, Place};
use vector14_hook::{GuestError, PAGE_SIZE, Pa};

/// Who has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    const NOBODY: Self = Self(0);
    /// The guest: a page table that was put into its own.
    pub(crate) const GUEST: Self = Self(1);

    /// The hook of this number.
    pub(crate) const fn hook(number: u32) -> Self {
        Self(number.saturating_add(2))
    }
}

/// The pages of a range of guest-physical memory.
pub(crate) struct Pool {
    start: Pa,
    pages: Box<[Page]>,
    /// Pages from here on have never been taken, and are zero as the host made them.
    untouched: AtomicU64,
    /// Zeroed pages that were given back.
    free: ArrayQueue<Pa>,
}

#[derive(Default)]
struct Page {
    owner: AtomicU32,
    /// The page-table entry that maps it, as [`to_bits`] has it; 0 where none is known.
    place: AtomicU64,
}

impl Pool {
    /// `size` bytes from `start` on.
    pub(crate) fn new(start: Pa, size: u64) -> Self {
        let count = usize::try_from(size / PAGE_SIZE).unwrap_or(usize::MAX);
        let pages = (0..count).map(|_| Page::default()).collect();
        Self { start, pages, untouched: AtomicU64::new(0), free: ArrayQueue::new(count.max(1)) }
    }

    /// Takes a page for `owner`.
    pub(crate) fn take(&self, owner: Owner) -> Result<Pa, GuestError> {
        let page = self.free.pop().or_else(|| self.first_untouched());
        let page = page.ok_or(GuestError::PoolExhausted { pages: self.pages.len() as u64 })?;
        if let Some(state) = self.state(page) {
            state.place.store(0, Ordering::Relaxed);
            state.owner.store(owner.0, Ordering::Release);
        }
        Ok(page)
    }

    /// Ends the ownership of a page of `owner`'s. The caller zeroes it and then calls [`Pool::recycle`].
    pub(crate) fn give_up(&self, page: Pa, owner: Owner) -> Result<(), GuestError> {
        let state = self.state(page).ok_or(GuestError::NotTaken(page))?;
        let given = state.owner.compare_exchange(owner.0, Owner::NOBODY.0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if given { Ok(()) } else { Err(GuestError::NotTaken(page)) }
    }

    /// Lets a zeroed page be taken again.
    pub(crate) fn recycle(&self, page: Pa) {
        // There is room for every page, and each is in here once at the most.
        let _ = self.free.push(page);
    }

    /// Notes that the entry at `place` maps `page`, if that is of the pool.
    pub(crate) fn note_mapped(&self, page: Pa, place: Place) {
        if let Some(state) = self.state(page) {
            state.place.store(to_bits(place), Ordering::Relaxed);
        }
    }

    /// The pages of `owner`, each with the entry that maps it.
    pub(crate) fn of(&self, owner: Owner) -> impl Iterator<Item = (Pa, Option<Place>)> {
        let touched = usize::try_from(self.untouched.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let pages = self.pages.iter().take(touched).zip(0..);
        let owned = pages.filter(move |(page, _)| page.owner.load(Ordering::Acquire) == owner.0);
        owned.map(|(page, index)| (self.start.offset(index * PAGE_SIZE), from_bits(page.place.load(Ordering::Relaxed))))
    }

    fn first_untouched(&self) -> Option<Pa> {
        let count = self.pages.len() as u64;
        let take = |taken| (taken < count).then_some(taken + 1);
        let index = self.untouched.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).ok()?;
        Some(self.start.offset(index * PAGE_SIZE))
    }

    fn state(&self, page: Pa) -> Option<&Page> {
        let offset = page.0.checked_sub(self.start.0).filter(|offset| offset % PAGE_SIZE == 0)?;
        self.pages.get(usize::try_from(offset / PAGE_SIZE).ok()?)
    }
}

/// A place in one word, never 0: its own word is a multiple of 8.
fn to_bits(place: Place) -> u64 {
    place.word.0
        | match place.part {
            Part::Whole => 1,
            Part::Low => 2,
            Part::High => 3,
        }
}

fn from_bits(bits: u64) -> Option<Place> {
    let part = match bits & 7 {
        1 => Part::Whole,
        2 => Part::Low,
        3 => Part::High,
        _ => return None,
    };
    Some(Place { word: Pa(bits & !7), part })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Owner = Owner::hook(0);

    #[test]
    fn every_page_is_given_once_and_then_says_so() {
        let pool = Pool::new(Pa(1 << 32), 8 * PAGE_SIZE);
        let pages: Vec<Pa> = std::iter::from_fn(|| pool.take(MINE).ok()).collect();
        assert_eq!(pages, (0..8).map(|index| Pa((1 << 32) + index * PAGE_SIZE)).collect::<Vec<_>>());
        assert_eq!(pool.take(MINE), Err(GuestError::PoolExhausted { pages: 8 }));
        pool.give_up(pages[3], MINE).unwrap();
        pool.recycle(pages[3]);
        assert_eq!(pool.take(MINE), Ok(pages[3]));
    }

    #[test]
    fn only_its_owner_gives_a_page_back_and_only_once() {
        let pool = Pool::new(Pa(1 << 32), 8 * PAGE_SIZE);
        let page = pool.take(MINE).unwrap();
        assert_eq!(pool.give_up(page, Owner::hook(1)), Err(GuestError::NotTaken(page)));
        assert_eq!(pool.give_up(page, MINE), Ok(()));
        assert_eq!(pool.give_up(page, MINE), Err(GuestError::NotTaken(page)));
        for outside in [Pa(0), page.offset(8), Pa((1 << 32) + 8 * PAGE_SIZE), Pa(u64::MAX)] {
            assert_eq!(pool.give_up(outside, MINE), Err(GuestError::NotTaken(outside)));
        }
    }

    #[test]
    fn the_pages_of_one_owner_are_found_with_the_entries_that_map_them() {
        let pool = Pool::new(Pa(1 << 32), 8 * PAGE_SIZE);
        let pages: Vec<Pa> = (0..4).map(|index| pool.take(Owner::hook(index % 2)).unwrap()).collect();
        let place = |part| Place { word: Pa(0x1238), part };
        for part in [Part::Whole, Part::Low, Part::High] {
            pool.note_mapped(pages[2], place(part));
            assert_eq!(pool.of(Owner::hook(0)).collect::<Vec<_>>(), [(pages[0], None), (pages[2], Some(place(part)))]);
        }
    }
}
