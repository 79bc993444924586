//! VM and vCPU file descriptors that keep the guest's memory mapped for as long as they can run it.

use std::sync::{Arc, Mutex};

use kvm_bindings::{kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vector14_hook::Pa;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::lock;
use super::ram::{self, Backing, GuestRam};
use super::slots::Slots;
pub(crate) use super::slots::{Access, AccessError, RefusedSlot};

/// A VM whose memory slots are ranges of one [`GuestRam`].
#[derive(Clone)]
pub(crate) struct MappedVm {
    fd: Arc<VmFd>,
    memory: GuestRam,
    slots: Arc<Slots>,
}

impl MappedVm {
    /// Creates a VM without memory slots; its slots can be ranges of `memory`.
    pub(crate) fn new(fd: VmFd, memory: GuestRam) -> Self {
        let fd = Arc::new(fd);
        let slots = Arc::new(Slots::new(Arc::clone(&fd), memory.clone()));
        Self { fd, memory, slots }
    }

    /// Gives the VM `size` bytes of its memory from guest-physical `start` on, in a slot of their own (KVM API 4.35,
    /// KVM_SET_USER_MEMORY_REGION). The range overlaps no other slot.
    ///
    /// # Errors
    /// KVM refuses the slot, or the range does not lie in one region of the memory.
    pub(crate) fn add_slot(&self, start: u64, size: u64) -> Result<(), RefusedSlot> {
        self.slots.add(start, size)
    }

    /// Sets what the guest may do with one page of its memory. No vCPU may run meanwhile.
    ///
    /// # Errors
    /// [`AccessError`].
    pub(crate) fn set_access(&self, page: Pa, access: Access) -> Result<(), AccessError> {
        self.slots.set_access(page.0, access)
    }

    /// The cached translations of this VM, to be dropped.
    ///
    /// # Errors
    /// The host has no page to spare.
    pub(crate) fn translations(&self) -> Result<Translations, vm_memory::mmap::FromRangesError> {
        let end = self.memory.iter().map(|region| region.start_addr().0 + region.len()).max().unwrap_or(0);
        let spare = ram::map(&[(end, SPARE_SIZE, Backing::Small)])?;
        Ok(Translations { vm: self.clone(), slot: self.slots.new_number(), spare, busy: Mutex::new(()) })
    }

    /// KVM_CHECK_EXTENSION (KVM API 4.4); 0 for what this KVM does not know.
    pub(crate) fn check_extension(&self, capability: u32) -> i32 {
        self.fd.check_extension_raw(capability.into())
    }

    /// KVM_ENABLE_CAP on the VM (KVM API 4.37), with the first two of its arguments.
    pub(crate) fn enable_cap(&self, capability: u32, [first, second]: [u64; 2]) -> Result<(), kvm_ioctls::Error> {
        let args = [first, second, 0, 0];
        self.fd.enable_cap(&kvm_enable_cap { cap: capability, args, ..kvm_enable_cap::default() })
    }

    /// KVM_CREATE_VCPU (KVM API 4.7).
    pub(crate) fn create_vcpu(&self, index: u32) -> Result<MappedVcpu, kvm_ioctls::Error> {
        Ok(MappedVcpu { fd: self.fd.create_vcpu(u64::from(index))?, _memory: self.memory.clone() })
    }
}

/// Size of the slot that is added and deleted, in bytes.
const SPARE_SIZE: u64 = 4096;

/// The translations that the vCPUs of a VM cache: TLB entries, and shadow page tables if KVM uses them.
///
/// KVM has no call to drop them. But when a memory slot is deleted, KVM drops everything that it has derived from any
/// slot, on every vCPU, and flushes their TLBs before they enter the guest again (KVM API 4.35;
/// KVM_X86_QUIRK_SLOT_ZAP_ALL, which is on unless it is turned off). So a slot of one page, beyond all memory, is
/// added and deleted again.
pub(crate) struct Translations {
    vm: MappedVm,
    slot: u32,
    spare: GuestRam,
    /// Held while the slot is there.
    busy: Mutex<()>,
}

impl Translations {
    /// Drops all cached translations. After this returns, no vCPU uses an older one.
    ///
    /// # Errors
    /// KVM refuses the slot.
    pub(crate) fn forget(&self) -> Result<(), kvm_ioctls::Error> {
        let _turn = lock(&self.busy);
        let sizes = [SPARE_SIZE, 0];
        sizes.into_iter().try_for_each(|memory_size| self.set_slot(memory_size))
    }

    fn set_slot(&self, memory_size: u64) -> Result<(), kvm_ioctls::Error> {
        let Some(region) = self.spare.iter().next() else { return Ok(()) };
        let argument = kvm_userspace_memory_region {
            slot: self.slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size,
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY:
        // 1. The range is a mapping of its own that nothing of ours refers to.
        // 2. The slot is gone again before `spare` is unmapped: it is deleted before the lock is released.
        unsafe { self.vm.fd.set_user_memory_region(argument) }
    }
}

/// A vCPU, and a handle on the memory that its guest runs in.
pub(crate) struct MappedVcpu {
    pub(crate) fd: VcpuFd,
    _memory: GuestRam,
}
