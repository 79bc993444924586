//! Host memory that backs guest-physical memory.
//!
//! A region of RAM has the same address modulo 2 MiB in the process as in the guest. Only then can KVM map it with
//! large pages, each of which replaces 512 of KVM's own exits. vm-memory does not choose where a mapping goes, so
//! the region type is our own.

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result;
use vm_memory::mmap::FromRangesError;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection, GuestUsize,
    MemoryRegionAddress, MmapRegion, VolatileMemory, VolatileSlice,
};

/// Guest-physical memory.
pub(crate) type GuestRam = GuestRegionCollection<Region>;

/// The size of a large page, in bytes.
const LARGE: usize = 2 << 20;

/// Size of the pages that the host should back a region with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Large pages, if the host has them.
    Large,
    /// Small pages, so that no more than what is touched is backed.
    Small,
}

/// A range of guest-physical memory.
pub(crate) struct Region {
    start: GuestAddress,
    length: usize,
    /// Longer than the region, by what its alignment may need.
    mapping: MmapRegion,
    /// Offset of the region in the mapping.
    offset: usize,
}

impl Region {
    /// Maps `length` bytes for the guest at `start`; both are multiples of 4 KiB.
    ///
    /// # Errors
    /// The host refuses the mapping, or the range exceeds the guest's addresses.
    pub(crate) fn new(
        start: GuestAddress,
        length: usize,
        backing: Backing,
    ) -> std::result::Result<Self, FromRangesError> {
        let room = length.checked_add(LARGE).ok_or(FromRangesError::InvalidGuestRegion)?;
        if start.0.checked_add(length as u64).is_none() {
            return Err(FromRangesError::InvalidGuestRegion);
        }
        let mapping = MmapRegion::new(room)?;
        let guest = usize::try_from(start.0).map_err(|_| FromRangesError::InvalidGuestRegion)?;
        let offset = guest.wrapping_sub(mapping.as_ptr().addr()) % LARGE;
        let region = Self { start, length, mapping, offset };
        let advice = match backing {
            Backing::Large => libc::MADV_HUGEPAGE,
            Backing::Small => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: the range is inside of the mapping; its contents stay as they are. A host without large pages
        // refuses, which does no harm.
        unsafe { libc::madvise(region.as_ptr().cast(), length, advice) };
        Ok(region)
    }

    /// Address of the region in this process.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(self.offset)
    }
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.length as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8> {
        let address = self.check_address(address).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        Ok(self.as_ptr().wrapping_add(usize::try_from(address.0).unwrap_or(0)))
    }

    fn get_slice(&self, address: MemoryRegionAddress, count: usize) -> Result<VolatileSlice<'_, BS<'_, ()>>> {
        let first = usize::try_from(address.0).ok().filter(|first| *first <= self.length);
        let first =
            first.filter(|first| count <= self.length - first).ok_or(GuestMemoryError::InvalidBackendAddress)?;
        Ok(self.mapping.get_slice(self.offset + first, count)?)
    }
}

impl GuestMemoryRegionBytes for Region {}

/// A range of guest-physical memory to map: start and size in bytes, and how it is backed.
type Range = (u64, u64, Backing);

fn region((start, size, backing): Range) -> std::result::Result<Region, FromRangesError> {
    Region::new(GuestAddress(start), usize::try_from(size).unwrap_or(usize::MAX), backing)
}

/// Maps ranges of guest-physical memory, which must not overlap.
///
/// # Errors
/// The same as [`Region::new`].
pub(crate) fn map(ranges: &[Range]) -> std::result::Result<GuestRam, FromRangesError> {
    let mut regions = ranges.iter().copied().map(region).collect::<std::result::Result<Vec<_>, _>>()?;
    regions.sort_unstable_by_key(|region| region.start);
    Ok(GuestRam::from_regions(regions)?)
}

/// Shares the regions of `memory`, and adds one.
///
/// # Errors
/// The same as [`Region::new`].
pub(crate) fn with(memory: &GuestRam, range: Range) -> std::result::Result<GuestRam, FromRangesError> {
    Ok(memory.insert_region(Arc::new(region(range)?))?)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[test]
    fn regions_lie_as_they_do_in_the_guest() {
        let ram = map(&[
            (1 << 32, 5 << 20, Backing::Small),
            (0, 3 << 20, Backing::Large),
            (0x1000_3000, 0x1000, Backing::Large),
        ])
        .unwrap();
        let places: Vec<_> = ram.iter().map(|region| (region.start.0, region.len())).collect();
        assert_eq!(places, [(0, 3 << 20), (0x1000_3000, 0x1000), (1 << 32, 5 << 20)]);
        for region in ram.iter() {
            assert_eq!(region.as_ptr().addr() % LARGE, usize::try_from(region.start.0).unwrap() % LARGE);
        }
    }

    #[test]
    fn a_region_ends_where_it_ends() {
        let ram = map(&[(0x20_0000, 0x2000, Backing::Large)]).unwrap();
        ram.write_slice(&[1; 0x2000], GuestAddress(0x20_0000)).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x20_1fff)).unwrap(), 1);
        assert!(ram.read_obj::<u8>(GuestAddress(0x20_2000)).is_err());
        assert!(ram.read_obj::<u8>(GuestAddress(0x1f_ffff)).is_err());
        assert!(ram.write_slice(&[1; 0x2001], GuestAddress(0x20_0000)).is_err());
        let region = ram.iter().next().unwrap();
        for (address, count, there) in
            [(0x1fff, 1, true), (0x2000, 0, true), (0x2000, 1, false), (1, 0x2000, false), (u64::MAX, 1, false)]
        {
            assert_eq!(region.get_slice(MemoryRegionAddress(address), count).is_ok(), there, "{address:#x} {count}");
        }
    }
}
