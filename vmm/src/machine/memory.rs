//! Guest-physical memory: RAM, with the hole below 4 GiB, and the pool of host-owned pages where the hole begins.
//!
//! Any address passed in may come from the guest: an access outside of memory is an error, never a panic. Pages of
//! the pool become memory when a hook first takes them, or slightly before; devices reach only RAM.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_ioctls::VmFd;
use vector14_hook::paging::{Place, Tables};
use vector14_hook::{EntryFlags, GuestError, GuestKind, Pa, TableEntry};
use vm_memory::{Bytes, GuestAddress};

pub(crate) use crate::machine::pool::Owner;
use crate::machine::pool::Pool;
use crate::sys::mapped::{MappedVm, RefusedSlot, Translations};
use crate::sys::ram::{self, Backing, GuestRam};
use crate::sys::words::Words;

/// RAM below 4 GiB ends here at the latest; the interrupt controllers and the firmware's addresses are above.
pub(crate) const HOLE_START: u64 = 0xc000_0000;
const HOLE_END: u64 = 1 << 32;

/// Start of the pool that hooks take pages from: outside of RAM, and within reach of 32-bit page-table entries.
const POOL_START: u64 = HOLE_START;
/// Size of the pool, in bytes.
const POOL_SIZE: u64 = 256 << 20;

/// A VM's guest-physical memory.
pub struct Memory {
    ram: GuestRam,
    /// RAM and the whole pool, including pages that the guest does not have yet.
    all: GuestRam,
    ram_words: Words,
    all_words: Words,
    ram_size: u64,
    pool: Pool,
    kind: GuestKind,
    /// The VM that runs in this memory; unset until there is one.
    machine: OnceLock<Machine>,
}

/// A VM, and the translations of this memory that its vCPUs cache.
struct Machine {
    vm: MappedVm,
    translations: Translations,
}

/// Why a VM's memory can't be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refuses the mapping.
    #[error("{size} bytes of guest memory can't be mapped")]
    Map {
        /// Size of the mapping, in bytes.
        size: u64,
        /// The host's error.
        source: vm_memory::mmap::FromRangesError,
    },
}

impl Memory {
    /// Maps `ram_size` bytes of RAM, a multiple of 4 KiB, and the pool.
    ///
    /// # Errors
    /// [`MemoryError::Map`].
    pub fn new(ram_size: u64) -> Result<Self, MemoryError> {
        let failed = |source| MemoryError::Map { size: ram_size, source };
        let ranges: Vec<_> =
            ram_ranges(ram_size).into_iter().map(|(start, size)| (start, size, Backing::Large)).collect();
        let ram = ram::map(&ranges).map_err(failed)?;
        let all = ram::with(&ram, (POOL_START, POOL_SIZE, Backing::Small)).map_err(failed)?;
        let (ram_words, all_words) = (Words::new(&ram), Words::new(&all));
        let pool = Pool::new(Pa(POOL_START), POOL_SIZE);
        Ok(Self {
            ram,
            all,
            ram_words,
            all_words,
            ram_size,
            pool,
            kind: GuestKind::default(),
            machine: OnceLock::new(),
        })
    }

    /// RAM as reported to the guest: start and size of each range, in bytes.
    #[must_use]
    pub fn ram(&self) -> Vec<(u64, u64)> {
        ram_ranges(self.ram_size)
    }

    /// Size of RAM, in bytes.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram_size
    }

    /// Kind of guest that was loaded.
    pub(crate) fn kind(&self) -> GuestKind {
        self.kind
    }

    /// Sets the kind of guest that was loaded.
    pub(crate) fn set_kind(&mut self, kind: GuestKind) {
        self.kind = kind;
    }

    /// RAM without the pool, for devices and loaders.
    pub(crate) fn map(&self) -> &GuestRam {
        &self.ram
    }

    /// Makes `fd` a VM that runs in this memory, and gives it the RAM.
    ///
    /// # Errors
    /// KVM refuses a range.
    pub(crate) fn machine(&self, fd: VmFd) -> Result<MappedVm, RefusedSlot> {
        let vm = MappedVm::new(fd, self.all.clone());
        self.ram().into_iter().try_for_each(|(start, size)| vm.add_slot(start, size))?;
        Ok(vm)
    }

    /// Fills `buffer` from guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    pub fn read(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError> {
        self.check(address, buffer.len())?;
        self.all.read_slice(buffer, GuestAddress(address.0)).map_err(|_| GuestError::OutsideMemory(address))
    }

    /// Writes `data` to guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    pub fn write(&self, address: Pa, data: &[u8]) -> Result<(), GuestError> {
        self.check(address, data.len())?;
        self.all.write_slice(data, GuestAddress(address.0)).map_err(|_| GuestError::OutsideMemory(address))
    }

    /// The 8 bytes at an aligned address, accessed in one piece, as the CPU's page walker does.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`], also for an address that is not a multiple of 8.
    #[inline]
    pub fn word(&self, address: Pa) -> Result<&AtomicU64, GuestError> {
        // Nearly all words are in RAM, which needs no further check.
        let word = self.ram_words.get(address.0).or_else(|| self.pool_word(address));
        word.ok_or(GuestError::OutsideMemory(address))
    }

    fn pool_word(&self, address: Pa) -> Option<&AtomicU64> {
        self.all_words.get(address.0).filter(|_| !self.pool.is_hole(address, 8))
    }

    /// Refuses addresses that are a hole to the guest although the host has memory there.
    #[inline]
    fn check(&self, address: Pa, length: usize) -> Result<(), GuestError> {
        if self.pool.is_hole(address, length as u64) { Err(GuestError::OutsideMemory(address)) } else { Ok(()) }
    }

    /// Reads a page-table entry, or any other aligned word.
    ///
    /// # Errors
    /// The same as [`Memory::word`].
    #[inline]
    pub fn load(&self, address: Pa) -> Result<u64, GuestError> {
        Ok(self.word(address)?.load(Ordering::Acquire))
    }

    /// Takes a 4 KiB page from the pool and zeroes it. The page's previous contents are lost.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`].
    pub(crate) fn allocate_page(&self, owner: Owner) -> Result<Pa, GuestError> {
        let page = self.pool.take(owner, |start, size| self.give(start, size))?;
        self.write(page, &[0; 4096])?;
        Ok(page)
    }

    /// Gives the VM that runs here more pages of the pool.
    fn give(&self, start: Pa, size: u64) -> Result<(), GuestError> {
        let Some(machine) = self.machine.get() else { return Ok(()) };
        machine.vm.add_slot(start.0, size).map_err(|slot| GuestError::PoolRefused(slot.source.errno()))
    }

    /// Gives back a page that `owner` has taken.
    ///
    /// # Errors
    /// [`GuestError::NotTaken`].
    pub(crate) fn free_page(&self, page: Pa, owner: Owner) -> Result<(), GuestError> {
        self.pool.give_back(page, owner)
    }

    /// Notes that the page-table entry at `place` maps `page`.
    pub(crate) fn note_mapped(&self, page: Pa, place: Place) {
        self.pool.note_mapped(page, place);
    }

    /// Unmaps and gives back all pages of `owner`.
    ///
    /// # Errors
    /// [`GuestError::Flush`]: the pages are then unmapped, but not given back.
    pub(crate) fn withdraw(&self, owner: Owner) -> Result<(), GuestError> {
        let pages: Vec<_> = self.pool.of(owner).collect();
        let mut unmapped = false;
        for (page, place) in &pages {
            unmapped |= place.is_some_and(|place| self.unmap_at(place, *page));
        }
        if unmapped {
            self.flush()?;
        }
        pages.into_iter().try_for_each(|(page, _)| self.free_page(page, owner))
    }

    /// Makes the entry at `place` absent, if it still maps `page`.
    fn unmap_at(&self, place: Place, page: Pa) -> bool {
        let Ok(word) = self.word(place.word) else { return false };
        let clear = |word| {
            let leaf = TableEntry { level: 1, slot: place.word, entry: place.part.of(word) };
            let maps = leaf.flags().contains(EntryFlags::PRESENT) && leaf.frame() == page;
            maps.then(|| place.part.replace(word, 0))
        };
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear).is_ok()
    }

    /// Makes every vCPU of the VM that runs in this memory drop its cached translations.
    ///
    /// # Errors
    /// [`GuestError::Flush`].
    pub(crate) fn flush(&self) -> Result<(), GuestError> {
        let forgotten = self.machine.get().map_or(Ok(()), |machine| machine.translations.forget());
        forgotten.map_err(|error| GuestError::Flush(error.errno()))
    }

    /// Registers the VM that is given pages of the pool, and whose cached translations `flush` drops.
    pub(crate) fn runs_in(&self, vm: MappedVm, translations: Translations) {
        // Only one VM runs in a memory, so this is set only once.
        let _ = self.machine.set(Machine { vm, translations });
    }
}

impl Tables for Memory {
    fn load(&self, slot: Pa) -> Result<u64, GuestError> {
        Self::load(self, slot)
    }

    fn replace(&self, slot: Pa, current: u64, new: u64) -> Result<bool, GuestError> {
        Ok(self.word(slot)?.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    fn allocate_table(&self) -> Result<Pa, GuestError> {
        self.allocate_page(Owner::GUEST)
    }

    fn free_table(&self, table: Pa) {
        let freed = self.free_page(table, Owner::GUEST);
        debug_assert!(freed.is_ok(), "{freed:?}");
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
    use vector14_hook::PAGE_SIZE;
    use vector14_hook::paging::Part;
    use vm_memory::GuestMemoryBackend;

    use super::*;

    #[test]
    fn large_memory_leaves_the_hole_below_4_gib() {
        assert_eq!(ram_ranges(64 << 20), [(0, 64 << 20)]);
        assert_eq!(ram_ranges(4 << 30), [(0, HOLE_START), (HOLE_END, 1 << 30)]);
    }

    fn at(word: u64) -> Place {
        Place { word: Pa(word), part: Part::Whole }
    }

    #[test]
    fn what_an_owner_has_is_unmapped_and_given_back() {
        let memory = Memory::new(2 << 20).unwrap();
        let (mine, other) = (Owner::hook(0), Owner::hook(1));
        let page = memory.allocate_page(mine).unwrap();
        let kept = memory.allocate_page(other).unwrap();
        assert!((HOLE_START..HOLE_END).contains(&page.0));
        memory.write(page, &[1; 8]).unwrap();
        memory.write(Pa(0x1000), &(page.0 | 3).to_le_bytes()).unwrap();
        memory.write(Pa(0x1008), &(kept.0 | 3).to_le_bytes()).unwrap();
        memory.note_mapped(page, at(0x1000));
        memory.note_mapped(kept, at(0x1008));
        memory.withdraw(mine).unwrap();
        assert_eq!((memory.load(Pa(0x1000)), memory.load(Pa(0x1008))), (Ok(0), Ok(kept.0 | 3)));
        assert_eq!(memory.allocate_page(other), Ok(page), "the page can be taken again");
    }

    #[test]
    fn a_page_is_zero_whatever_the_guest_has_written_since_it_was_given_back() {
        let memory = Memory::new(2 << 20).unwrap();
        let page = memory.allocate_page(Owner::hook(0)).unwrap();
        memory.free_page(page, Owner::hook(0)).unwrap();
        memory.write(page, &[1; 4096]).unwrap();
        assert_eq!(memory.allocate_page(Owner::hook(0)), Ok(page));
        let mut contents = [1; 4096];
        memory.read(page, &mut contents).unwrap();
        assert_eq!(contents, [0; 4096]);
    }

    #[test]
    fn pages_that_nobody_has_taken_are_no_memory() {
        let memory = Memory::new(2 << 20).unwrap();
        let hole = |page: Pa| {
            let outside = Err(GuestError::OutsideMemory(page));
            assert_eq!((memory.read(page, &mut [0]), memory.write(page, &[0])), (outside, outside));
            assert_eq!(memory.load(page).map(drop), outside);
            assert!(memory.map().find_region(GuestAddress(page.0)).is_none());
        };
        hole(Pa(POOL_START));
        let page = memory.allocate_page(Owner::hook(0)).unwrap();
        assert_eq!((page, memory.load(page.offset(4088))), (Pa(POOL_START), Ok(0)));
        hole(page.offset(PAGE_SIZE));
        assert!(memory.read(page.offset(4092), &mut [0; 8]).is_err());
    }

    #[test]
    fn an_entry_that_maps_another_page_by_now_is_left_alone() {
        let memory = Memory::new(2 << 20).unwrap();
        let page = memory.allocate_page(Owner::hook(0)).unwrap();
        memory.write(Pa(0x1000), &0x5003_u64.to_le_bytes()).unwrap();
        memory.note_mapped(page, at(0x1000));
        memory.withdraw(Owner::hook(0)).unwrap();
        assert_eq!(memory.load(Pa(0x1000)), Ok(0x5003));
    }

    #[test]
    fn accesses_outside_of_memory_are_refused() {
        let memory = Memory::new(2 << 20).unwrap();
        let mut byte = [0];
        for address in [
            Pa(2 << 20),
            Pa(HOLE_START - 8),
            Pa(POOL_START),
            Pa(POOL_START + POOL_SIZE),
            Pa(u64::MAX),
            Pa((2 << 20) - 1).offset(1),
        ] {
            assert_eq!(memory.read(address, &mut byte), Err(GuestError::OutsideMemory(address)));
            assert_eq!(memory.load(address), Err(GuestError::OutsideMemory(address)));
        }
        assert_eq!(memory.write(Pa((2 << 20) - 4), &[0; 8]), Err(GuestError::OutsideMemory(Pa((2 << 20) - 4))));
    }
}
