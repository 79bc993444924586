//! The memory of a mock guest: RAM, pages for its page tables, and the pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::paging::Tables;
use crate::{GuestError, PAGE_SIZE, Pa};

/// RAM begins at 0, so that small physical addresses are valid.
const RAM_PAGES: u64 = 64;
/// Page tables have their own region, so that only hooks take pages from the pool.
const TABLES_START: Pa = Pa(1 << 30);
const TABLES_PAGES: u64 = 256;
const POOL_START: Pa = Pa(1 << 32);

/// All of a guest's memory.
pub(super) struct Memory {
    pub(super) ram: Pages,
    pub(super) tables: Pages,
    pub(super) pool: Pages,
}

/// Consecutive pages of guest-physical memory.
pub(super) struct Pages {
    start: Pa,
    words: Box<[AtomicU64]>,
    taken: Box<[AtomicBool]>,
}

impl Memory {
    pub(super) fn new(pool_pages: u64) -> Self {
        Self {
            ram: Pages::new(Pa(0), RAM_PAGES),
            tables: Pages::new(TABLES_START, TABLES_PAGES),
            pool: Pages::new(POOL_START, pool_pages),
        }
    }

    pub(super) fn read(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        for (byte, at) in buffer.iter_mut().zip(address.0..) {
            let (word, shift) = self.byte(Pa(at))?;
            *byte = (word.load(Ordering::Acquire) >> shift).to_le_bytes()[0];
        }
        Ok(())
    }

    pub(super) fn write(&self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        for (byte, at) in data.iter().zip(address.0..) {
            let (word, shift) = self.byte(Pa(at))?;
            let set = |old: u64| Some((old & !(0xff << shift)) | u64::from(*byte) << shift);
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        }
        Ok(())
    }

    /// The word that holds the byte at `address`, and the byte's bit offset in it.
    fn byte(&self, address: Pa) -> Result<(&AtomicU64, u64), GuestError> {
        Ok((self.word(Pa(address.0 & !7))?, (address.0 & 7) * 8))
    }

    fn word(&self, address: Pa) -> Result<&AtomicU64, GuestError> {
        let parts = [&self.ram, &self.tables, &self.pool];
        parts.into_iter().find_map(|part| part.word(address)).ok_or(GuestError::OutsideMemory(address))
    }
}

impl Tables for Memory {
    fn load(&self, slot: Pa) -> Result<u64, GuestError> {
        Ok(self.word(slot)?.load(Ordering::Acquire))
    }

    fn replace(&self, slot: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        Ok(self.word(slot)?.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }

    fn allocate_table(&self) -> Result<Pa, GuestError> {
        self.tables.take()
    }

    fn free_table(&self, table: Pa) {
        let _ = self.tables.give_back(table);
    }
}

impl Pages {
    fn new(start: Pa, count: u64) -> Self {
        let words = (0..count * PAGE_SIZE / 8).map(|_| AtomicU64::new(0)).collect();
        Self { start, words, taken: (0..count).map(|_| AtomicBool::new(false)).collect() }
    }

    fn word(&self, address: Pa) -> Option<&AtomicU64> {
        let offset = address.0.checked_sub(self.start.0).filter(|offset| offset % 8 == 0)?;
        self.words.get(usize::try_from(offset / 8).ok()?)
    }

    pub(super) fn take(&self) -> Result<Pa, GuestError> {
        let free = self.taken.iter().position(|taken| !taken.swap(true, Ordering::AcqRel));
        let index = free.ok_or(GuestError::PoolExhausted { pages: self.taken.len() as u64 })?;
        Ok(self.start.offset(index as u64 * PAGE_SIZE))
    }

    pub(super) fn give_back(&self, page: Pa) -> Result<(), GuestError> {
        let not_taken = GuestError::NotTaken(page);
        let offset = page.0.checked_sub(self.start.0).filter(|offset| offset % PAGE_SIZE == 0).ok_or(not_taken)?;
        let index = usize::try_from(offset / PAGE_SIZE).map_err(|_| not_taken)?;
        let taken = self.taken.get(index).filter(|taken| taken.load(Ordering::Acquire)).ok_or(not_taken)?;
        (0..PAGE_SIZE)
            .step_by(8)
            .filter_map(|at| self.word(page.offset(at)))
            .for_each(|word| word.store(0, Ordering::Release));
        taken.store(false, Ordering::Release);
        Ok(())
    }

    pub(super) fn count_taken(&self) -> usize {
        self.taken.iter().filter(|taken| taken.load(Ordering::Acquire)).count()
    }
}
