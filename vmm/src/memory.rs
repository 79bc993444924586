//! Guest-physical memory: RAM, with the hole below 4 GiB, and the pool of host-owned pages at the hole's beginning.
//!
//! Every address that comes in here may come from the guest: an access outside of memory is an error, never a panic.

use std::sync::atomic::{AtomicU64, Ordering};

use vector14_hook::{GuestError, PAGE_SIZE, Pa};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::sys::words::Words;

/// Below 4 GiB, RAM ends here at the latest: above are the interrupt controllers and firmware's addresses.
pub(crate) const HOLE_START: u64 = 0xc000_0000;
const HOLE_END: u64 = 1 << 32;

/// Where the pool that hooks take pages from begins: where no RAM is, and the entries of 32-bit page tables reach.
const POOL_START: u64 = HOLE_START;
/// Its size, in bytes. The host backs only what is touched.
const POOL_SIZE: u64 = 256 << 20;

/// A VM's guest-physical memory.
pub struct Memory {
    map: GuestMemoryMmap,
    words: Words,
    ram_size: u64,
    pool_taken: AtomicU64,
}

/// Why a VM's memory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refuses the mapping.
    #[error("{size} bytes of guest memory can't be mapped")]
    Map {
        /// How much was asked for, in bytes.
        size: u64,
        /// What the host says.
        source: vm_memory::mmap::FromRangesError,
    },
}

impl Memory {
    /// Maps `ram_size` bytes of RAM, a multiple of 4 KiB, and the pool.
    ///
    /// # Errors
    /// [`MemoryError::Map`].
    pub fn new(ram_size: u64) -> Result<Self, MemoryError> {
        let mut ranges = ram_ranges(ram_size);
        ranges.push((POOL_START, POOL_SIZE));
        ranges.sort_unstable();
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(start, size)| (GuestAddress(start), usize::try_from(size).unwrap_or(usize::MAX)))
            .collect();
        let map =
            GuestMemoryMmap::from_ranges(&ranges).map_err(|source| MemoryError::Map { size: ram_size, source })?;
        let words = Words::new(&map);
        Ok(Self { map, words, ram_size, pool_taken: AtomicU64::new(0) })
    }

    /// RAM as the guest is told of it: start and size of each range, in bytes.
    #[must_use]
    pub fn ram(&self) -> Vec<(u64, u64)> {
        ram_ranges(self.ram_size)
    }

    /// Size of RAM, in bytes.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram_size
    }

    pub(crate) fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// Fills `buffer` from guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    pub fn read(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.map.read_slice(buffer, GuestAddress(address.0)).map_err(|_| GuestError::OutsideMemory(address))
    }

    /// Writes `data` to guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    pub fn write(&self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        self.map.write_slice(data, GuestAddress(address.0)).map_err(|_| GuestError::OutsideMemory(address))
    }

    /// The 8 bytes at an aligned address, to be accessed as the CPU's page walker does: in one piece.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`], for an address that is not a multiple of 8 as well.
    #[inline]
    pub fn word(&self, address: Pa) -> Result<&AtomicU64, GuestError> {
        self.words.get(address.0).ok_or(GuestError::OutsideMemory(address))
    }

    /// Reads a page-table entry, or any other aligned word.
    ///
    /// # Errors
    /// As [`Memory::word`].
    #[inline]
    pub fn load(&self, address: Pa) -> Result<u64, GuestError> {
        Ok(self.word(address)?.load(Ordering::Acquire))
    }

    /// Takes a zeroed 4 KiB page from the pool.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`].
    pub fn allocate_page(&self) -> Result<Pa, GuestError> {
        let pages = POOL_SIZE / PAGE_SIZE;
        let take = |taken| (taken < pages).then_some(taken + 1);
        match self.pool_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(index) => Ok(Pa(POOL_START + index * PAGE_SIZE)),
            Err(_) => Err(GuestError::PoolExhausted { pages }),
        }
    }
}

fn ram_ranges(size: u64) -> Vec<(u64, u64)> {
    let mut ranges = vec![(0, size.min(HOLE_START))];
    if size > HOLE_START {
        ranges.push((HOLE_END, size - HOLE_START));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_leaves_the_hole_below_4_gib() {
        assert_eq!(ram_ranges(64 << 20), [(0, 64 << 20)]);
        assert_eq!(ram_ranges(4 << 30), [(0, HOLE_START), (HOLE_END, 1 << 30)]);
    }

    #[test]
    fn the_pool_gives_every_page_once_and_then_says_so() {
        let memory = Memory::new(2 << 20).unwrap();
        let pages: Vec<Pa> = std::iter::from_fn(|| memory.allocate_page().ok()).collect();
        assert_eq!(pages.len() as u64, POOL_SIZE / PAGE_SIZE);
        assert!(pages.windows(2).all(|pair| pair[1].0 == pair[0].0 + PAGE_SIZE));
        assert_eq!(memory.allocate_page(), Err(GuestError::PoolExhausted { pages: POOL_SIZE / PAGE_SIZE }));
        assert!(pages[0].0 >= HOLE_START && pages.iter().all(|page| page.0 < HOLE_END));
    }

    #[test]
    fn accesses_outside_of_memory_are_refused() {
        let memory = Memory::new(2 << 20).unwrap();
        let mut byte = [0];
        for address in
            [Pa(2 << 20), Pa(HOLE_START - 8), Pa(POOL_START + POOL_SIZE), Pa(u64::MAX), Pa((2 << 20) - 1).offset(1)]
        {
            assert_eq!(memory.read(address, &mut byte), Err(GuestError::OutsideMemory(address)));
            assert_eq!(memory.load(address), Err(GuestError::OutsideMemory(address)));
        }
        assert_eq!(memory.write(Pa((2 << 20) - 4), &[0; 8]), Err(GuestError::OutsideMemory(Pa((2 << 20) - 4))));
    }
}
