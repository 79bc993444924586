//! Host-owned guest-physical pages: who owns each, where it is mapped, and which are free.
//!
//! The guest is given the pages that hooks take, a few at a time and in ascending order; the rest of the pool is a
//! hole to it. Hooks take pages on the path of a fault, so nothing here allocates once the pool exists, and the only
//! lock is for giving the guest more pages.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use vector14_hook::paging::{Part, Place};
use vector14_hook::{GuestError, PAGE_SIZE, Pa};

use crate::sys::lock;

/// Owner of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    const NOBODY: Self = Self(0);
    /// The guest: the page is a page table that was linked into the guest's own.
    pub(crate) const GUEST: Self = Self(1);

    /// The hook with this number.
    pub(crate) const fn hook(number: u32) -> Self {
        Self(number.saturating_add(2))
    }
}

/// The guest is given one page in advance per this many that it has, so a pool that is used up has about 160 memory
/// slots. Every KVM with synced registers has 509 or more.
const GIVEN_PER_PAGE_AHEAD: u64 = 16;

/// The pages of a range of guest-physical memory.
pub(crate) struct Pool {
    start: Pa,
    pages: Box<[Page]>,
    /// Index of the first page that has never been taken.
    taken: AtomicU64,
    /// Index of the first page that the guest does not have. Never less than `taken`.
    given: AtomicU64,
    /// Held while the guest is given more pages.
    giving: Mutex<()>,
    /// Pages that were given back.
    free: ArrayQueue<Pa>,
}

#[derive(Default)]
struct Page {
    owner: AtomicU32,
    /// The page-table entry that maps the page, encoded by [`to_bits`]; 0 if none is known.
    place: AtomicU64,
}

impl Pool {
    /// Creates a pool of `size` bytes from `start` on.
    pub(crate) fn new(start: Pa, size: u64) -> Self {
        let count = usize::try_from(size / PAGE_SIZE).unwrap_or(usize::MAX);
        Self {
            start,
            pages: (0..count).map(|_| Page::default()).collect(),
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
            giving: Mutex::default(),
            free: ArrayQueue::new(count.max(1)),
        }
    }

    /// Takes a page for `owner`; the page keeps its previous contents. If the guest must be given more pages first,
    /// calls `give` with their start and size in bytes.
    pub(crate) fn take(
        &self,
        owner: Owner,
        give: impl Fn(Pa, u64) -> Result<(), GuestError>,
    ) -> Result<Pa, GuestError> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => self.take_untaken(give)?,
        };
        if let Some(state) = self.state(page) {
            state.place.store(0, Ordering::Relaxed);
            state.owner.store(owner.0, Ordering::Release);
        }
        Ok(page)
    }

    /// Gives back a page of `owner`, so that it can be taken again.
    pub(crate) fn give_back(&self, page: Pa, owner: Owner) -> Result<(), GuestError> {
        let state = self.state(page).ok_or(GuestError::NotTaken(page))?;
        let given_up = state.owner.compare_exchange(owner.0, Owner::NOBODY.0, Ordering::AcqRel, Ordering::Relaxed);
        given_up.map_err(|_| GuestError::NotTaken(page))?;
        // There is room for every page, and each page is in the queue at most once.
        let _ = self.free.push(page);
        Ok(())
    }

    /// Whether any of these bytes are in pages of the pool that the guest does not have.
    #[inline]
    pub(crate) fn is_hole(&self, address: Pa, length: u64) -> bool {
        let hole = self.page(self.given.load(Ordering::Acquire));
        address < self.page(self.pages.len() as u64) && address.0.saturating_add(length) > hole.0
    }

    /// Notes that the entry at `place` maps `page`, if `page` belongs to the pool.
    pub(crate) fn note_mapped(&self, page: Pa, place: Place) {
        if let Some(state) = self.state(page) {
            state.place.store(to_bits(place), Ordering::Relaxed);
        }
    }

    /// The pages of `owner`, each with the entry that maps it.
    pub(crate) fn of(&self, owner: Owner) -> impl Iterator<Item = (Pa, Option<Place>)> {
        let taken = usize::try_from(self.taken.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        let pages = self.pages.iter().take(taken).zip(0..);
        let owned = pages.filter(move |(page, _)| page.owner.load(Ordering::Acquire) == owner.0);
        owned.map(|(page, index)| (self.page(index), from_bits(page.place.load(Ordering::Relaxed))))
    }

    /// Takes the first page that was never taken, which the guest has by then.
    fn take_untaken(&self, give: impl Fn(Pa, u64) -> Result<(), GuestError>) -> Result<Pa, GuestError> {
        let count = self.pages.len() as u64;
        loop {
            let index = self.taken.load(Ordering::Acquire);
            if index == count {
                return Err(GuestError::PoolExhausted { pages: count });
            }
            if index >= self.given.load(Ordering::Acquire) {
                self.give_for(index, &give)?;
            }
            if self.taken.compare_exchange(index, index + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(self.page(index));
            }
        }
    }

    /// Gives the guest more pages, unless another vCPU has already done so for the page at this index.
    fn give_for(&self, index: u64, give: impl Fn(Pa, u64) -> Result<(), GuestError>) -> Result<(), GuestError> {
        let _turn = lock(&self.giving);
        let given = self.given.load(Ordering::Acquire);
        if index < given {
            return Ok(());
        }
        let more = (given / GIVEN_PER_PAGE_AHEAD).max(1).min(self.pages.len() as u64 - given);
        give(self.page(given), more * PAGE_SIZE)?;
        self.given.store(given + more, Ordering::Release);
        Ok(())
    }

    fn page(&self, index: u64) -> Pa {
        self.start.offset(index * PAGE_SIZE)
    }

    fn state(&self, page: Pa) -> Option<&Page> {
        let offset = page.0.checked_sub(self.start.0).filter(|offset| offset % PAGE_SIZE == 0)?;
        self.pages.get(usize::try_from(offset / PAGE_SIZE).ok()?)
    }
}

/// Encodes a place in one word, which is never 0: the address in it is a multiple of 8.
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
    use std::cell::Cell;

    use super::*;

    const MINE: Owner = Owner::hook(0);

    fn pool(pages: u64) -> Pool {
        Pool::new(Pa(1 << 32), pages * PAGE_SIZE)
    }

    fn take(pool: &Pool, owner: Owner) -> Result<Pa, GuestError> {
        pool.take(owner, |_, _| Ok(()))
    }

    #[test]
    fn every_page_is_taken_once_and_then_there_are_none() {
        let pool = pool(8);
        let pages: Vec<Pa> = std::iter::from_fn(|| take(&pool, MINE).ok()).collect();
        assert_eq!(pages, (0..8).map(|index| Pa((1 << 32) + index * PAGE_SIZE)).collect::<Vec<_>>());
        assert_eq!(take(&pool, MINE), Err(GuestError::PoolExhausted { pages: 8 }));
        pool.give_back(pages[3], MINE).unwrap();
        assert_eq!(take(&pool, MINE), Ok(pages[3]));
    }

    #[test]
    fn the_guest_has_what_was_taken_and_a_sixteenth_more_at_the_most() {
        let pool = pool(65536);
        let (slots, given) = (Cell::new(0), Cell::new(0));
        for taken in 1..=65536 {
            let page = pool.take(MINE, |start, size| {
                assert_eq!(start.0, (1 << 32) + given.get() * PAGE_SIZE, "slots adjoin each other");
                slots.set(slots.get() + 1);
                given.set(given.get() + size / PAGE_SIZE);
                Ok(())
            });
            let given = given.get();
            assert!((taken..=taken + taken / 16).contains(&given), "{given} pages given for {taken}");
            assert_eq!((pool.is_hole(page.unwrap(), 4096), pool.is_hole(pool.page(given), 1)), (false, given < 65536));
        }
        // KVM had 509 memory slots before Linux 5.14.
        assert!(slots.get() < 200, "{} slots", slots.get());
    }

    #[test]
    fn what_reaches_into_the_hole_is_in_the_hole() {
        let pool = pool(8);
        let page = take(&pool, MINE).unwrap();
        for (offset, length, hole) in [
            (0, 4096, false),
            (1, 4096, true),
            (4095, 1, false),
            (4096, 1, true),
            (8 * 4096 - 1, 1, true),
            (8 * 4096, 1, false),
        ] {
            assert_eq!(pool.is_hole(page.offset(offset), length), hole, "{length} bytes at {offset}");
        }
        assert!(!pool.is_hole(Pa(0), 4096) && !pool.is_hole(Pa(u64::MAX), 8));
        assert!(!pool.is_hole(Pa((1 << 32) - 8), 4096) && pool.is_hole(Pa((1 << 32) - 8), 4105));
    }

    #[test]
    fn a_page_that_the_guest_can_not_be_given_is_not_taken() {
        let pool = pool(8);
        let refused = Err(GuestError::PoolRefused(12));
        assert_eq!(pool.take(MINE, |_, _| refused), refused.map(|()| Pa(0)));
        assert_eq!(take(&pool, MINE), Ok(Pa(1 << 32)));
    }

    #[test]
    fn a_page_that_was_given_back_is_the_guests_already() {
        let pool = pool(8);
        let page = take(&pool, MINE).unwrap();
        pool.give_back(page, MINE).unwrap();
        assert_eq!(pool.take(MINE, |start, _| panic!("{start} is given again")), Ok(page));
    }

    #[test]
    fn vcpus_that_take_pages_at_once_get_different_ones() {
        let pool = pool(512);
        let all = |_| std::iter::from_fn(|| take(&pool, MINE).ok()).collect::<Vec<_>>();
        let mut pages: Vec<Pa> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|vcpu| scope.spawn(move || all(vcpu))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        pages.sort_unstable();
        assert_eq!(pages, (0..512).map(|index| pool.page(index)).collect::<Vec<_>>());
    }

    #[test]
    fn only_its_owner_gives_a_page_back_and_only_once() {
        let pool = pool(8);
        let page = take(&pool, MINE).unwrap();
        assert_eq!(pool.give_back(page, Owner::hook(1)), Err(GuestError::NotTaken(page)));
        assert_eq!(pool.give_back(page, MINE), Ok(()));
        assert_eq!(pool.give_back(page, MINE), Err(GuestError::NotTaken(page)));
        for outside in [Pa(0), page.offset(8), Pa((1 << 32) + 8 * PAGE_SIZE), Pa(u64::MAX)] {
            assert_eq!(pool.give_back(outside, MINE), Err(GuestError::NotTaken(outside)));
        }
    }

    #[test]
    fn the_pages_of_one_owner_are_found_with_the_entries_that_map_them() {
        let pool = pool(8);
        let pages: Vec<Pa> = (0..4).map(|index| take(&pool, Owner::hook(index % 2)).unwrap()).collect();
        let place = |part| Place { word: Pa(0x1238), part };
        for part in [Part::Whole, Part::Low, Part::High] {
            pool.note_mapped(pages[2], place(part));
            assert_eq!(pool.of(Owner::hook(0)).collect::<Vec<_>>(), [(pages[0], None), (pages[2], Some(place(part)))]);
        }
    }
}
