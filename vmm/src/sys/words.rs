//! Guest memory as 8-byte words, which page walks and exception frames consist of and which the path of a fault
//! reads.

use std::sync::atomic::AtomicU64;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::ram::{self, GuestRam};

/// The words of a [`GuestRam`]; a lookup costs one comparison per region.
pub(crate) struct Words {
    regions: Vec<Region>,
    /// Keeps the regions mapped.
    _memory: GuestRam,
}

struct Region {
    start: u64,
    /// Offset of the last whole word.
    last: u64,
    host: *mut u8,
}

// SAFETY: the pointers are only ever used to make references to atomics in memory that `_memory` keeps mapped.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    pub(crate) fn new(memory: &GuestRam) -> Self {
        let region = |region: &ram::Region| {
            let last = region.len().checked_sub(8)?;
            Some(Region { start: region.start_addr().0, last, host: region.as_ptr() })
        };
        Self { regions: memory.iter().filter_map(region).collect(), _memory: memory.clone() }
    }

    /// The word at a guest-physical address; `None` if there is no memory, or if the address is not a multiple of 8.
    pub(crate) fn get(&self, address: u64) -> Option<&AtomicU64> {
        let found = self.regions.iter().find(|region| address.wrapping_sub(region.start) <= region.last)?;
        let offset = usize::try_from(address - found.start).ok().filter(|offset| offset % 8 == 0)?;
        // SAFETY:
        // 1. `offset` and the 8 bytes from there on lie inside of the region, which `self` keeps mapped.
        // 2. The region begins at a page, so the word is aligned.
        // 3. The guest and other threads access it at the same time: as an atomic, that is sound.
        Some(unsafe { AtomicU64::from_ptr(found.host.add(offset).cast()) })
    }
}
