//! Memory slots: the ranges of guest-physical memory that KVM maps, and which of them the guest can only read.

use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::lock;
use super::ram::GuestRam;

/// Size of the smallest slot, in bytes.
const PAGE_SIZE: u64 = 4096;

/// The slots of one VM: ranges of one [`GuestRam`], which stays mapped as long as the slots exist.
pub(super) struct Slots {
    vm: Arc<VmFd>,
    memory: GuestRam,
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    slots: Vec<Slot>,
    /// Number of the next new slot.
    next: u32,
}

/// A slot, as KVM_SET_USER_MEMORY_REGION describes it (KVM API 4.35). Sizes and addresses are multiples of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    number: u32,
    start: u64,
    size: u64,
    /// Address of the slot in this process.
    host: u64,
    access: Access,
}

/// What the guest may do with a page of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read, write and execute.
    ReadWrite,
    /// Read and execute. A write returns from KVM_RUN as an MMIO access (KVM API 4.35, KVM_MEM_READONLY).
    ReadOnly,
}

/// A slot that KVM refused: guest-physical start and size in bytes, and the ioctl's error.
pub(crate) struct RefusedSlot {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) source: kvm_ioctls::Error,
}

/// Why the guest's access to a page was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// No slot covers the page.
    #[error("no memory slot covers it")]
    NoSlot,
    /// KVM refused a slot, and everything is as it was.
    #[error("KVM refuses the memory slot: {0}")]
    Refused(kvm_ioctls::Error),
    /// KVM also refused to put the slots back as they were: the guest has lost memory.
    #[error("KVM refuses to map guest memory again: {0}")]
    Lost(kvm_ioctls::Error),
}

impl Slots {
    pub(super) fn new(vm: Arc<VmFd>, memory: GuestRam) -> Self {
        Self { vm, memory, map: Mutex::default() }
    }

    /// Adds a slot of `size` bytes of memory from `start` on. The range must lie in one region and overlap no other
    /// slot.
    pub(super) fn add(&self, start: u64, size: u64) -> Result<(), RefusedSlot> {
        let refused = |source| RefusedSlot { start, size, source };
        let host = self.host_address(start, size).ok_or_else(|| refused(kvm_ioctls::Error::new(libc::EINVAL)))?;
        let mut map = lock(&self.map);
        let slot = Slot { number: map.next, start, size, host: host as u64, access: Access::ReadWrite };
        slot.set(&self.vm).map_err(refused)?;
        map.slots.push(slot);
        map.next += 1;
        Ok(())
    }

    /// Address in this process of a range that lies in one region.
    fn host_address(&self, start: u64, size: u64) -> Option<*mut u8> {
        let region = self.memory.find_region(GuestAddress(start))?;
        let address = region.to_region_addr(GuestAddress(start))?;
        let slice = region.get_slice(address, usize::try_from(size).ok()?).ok()?;
        Some(slice.ptr_guard_mut().as_ptr())
    }

    /// Returns a number that no slot has.
    pub(super) fn new_number(&self) -> u32 {
        let mut map = lock(&self.map);
        map.next += 1;
        map.next - 1
    }

    /// Sets what the guest may do with the page at `page`, a multiple of 4 KiB. The slot that covers the page is
    /// deleted and its parts are added again, so no vCPU may run meanwhile.
    pub(super) fn set_access(&self, page: u64, access: Access) -> Result<(), AccessError> {
        let mut map = lock(&self.map);
        let index = map.slots.iter().position(|slot| slot.covers(page)).ok_or(AccessError::NoSlot)?;
        let whole = map.slots[index];
        if whole.access == access {
            return Ok(());
        }
        let parts = whole.split(page, access, map.next);
        whole.delete(&self.vm).map_err(AccessError::Refused)?;
        for (done, part) in parts.iter().enumerate() {
            if let Err(error) = part.set(&self.vm) {
                let undone = parts[..done].iter().try_for_each(|part| part.delete(&self.vm));
                return Err(match undone.and_then(|()| whole.set(&self.vm)) {
                    Ok(()) => AccessError::Refused(error),
                    Err(error) => AccessError::Lost(error),
                });
            }
        }
        map.next = parts.iter().fold(map.next, |next, part| next.max(part.number + 1));
        map.slots.swap_remove(index);
        map.slots.extend(parts);
        Ok(())
    }
}

impl Slot {
    fn covers(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.size
    }

    /// Splits the slot into what is around the page at `page`, and that page. The first part keeps the slot's number;
    /// the others are numbered from `next` on.
    fn split(&self, page: u64, access: Access, next: u32) -> Vec<Self> {
        let before = page - self.start;
        let after = self.size - before - PAGE_SIZE;
        let ranges = [(0, before, self.access), (before, PAGE_SIZE, access), (before + PAGE_SIZE, after, self.access)];
        let ranges = ranges.into_iter().filter(|(_, size, _)| *size > 0);
        let numbers = std::iter::once(self.number).chain(next..);
        ranges
            .zip(numbers)
            .map(|((offset, size, access), number)| Self {
                number,
                start: self.start + offset,
                size,
                host: self.host + offset,
                access,
            })
            .collect()
    }

    fn set(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        self.set_size(vm, self.size)
    }

    fn delete(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        self.set_size(vm, 0)
    }

    fn set_size(&self, vm: &VmFd, memory_size: u64) -> Result<(), kvm_ioctls::Error> {
        let flags = match self.access {
            Access::ReadWrite => 0,
            Access::ReadOnly => KVM_MEM_READONLY,
        };
        let argument = kvm_userspace_memory_region {
            slot: self.number,
            flags,
            guest_phys_addr: self.start,
            memory_size,
            userspace_addr: self.host,
        };
        // SAFETY:
        // 1. The range is part of a mapping made for the guest; the process accesses it through volatile and atomic
        //    accesses only, never through references.
        // 2. `Slots` and every vCPU of the VM hold a handle on the memory: it stays mapped until the last of them is gone.
        unsafe { vm.set_user_memory_region(argument) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Slot =
        Slot { number: 3, start: 0x10_0000, size: 0x4000, host: 0x7000_0000, access: Access::ReadWrite };

    fn ranges(page: u64) -> Vec<(u32, u64, u64, u64, Access)> {
        let parts = WHOLE.split(page, Access::ReadOnly, 7);
        parts.iter().map(|part| (part.number, part.start, part.size, part.host, part.access)).collect()
    }

    #[test]
    fn a_page_in_the_middle_makes_three_slots_of_one() {
        assert_eq!(
            ranges(0x10_1000),
            [
                (3, 0x10_0000, 0x1000, 0x7000_0000, Access::ReadWrite),
                (7, 0x10_1000, 0x1000, 0x7000_1000, Access::ReadOnly),
                (8, 0x10_2000, 0x2000, 0x7000_2000, Access::ReadWrite),
            ]
        );
    }

    #[test]
    fn a_page_at_either_end_makes_two() {
        assert_eq!(
            ranges(0x10_0000).iter().map(|part| (part.0, part.2)).collect::<Vec<_>>(),
            [(3, 0x1000), (7, 0x3000)]
        );
        assert_eq!(
            ranges(0x10_3000).iter().map(|part| (part.0, part.2)).collect::<Vec<_>>(),
            [(3, 0x3000), (7, 0x1000)]
        );
    }
}
