//! VM and vCPU file descriptors that keep the guest's memory mapped for as long as they can run it.

use kvm_bindings::{kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// A VM whose memory slots are the regions of one [`GuestMemoryMmap`].
pub(crate) struct MappedVm {
    fd: VmFd,
    memory: GuestMemoryMmap,
}

/// A region that KVM refused: guest-physical start and size in bytes, and what the ioctl said.
pub(crate) struct RefusedSlot {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) source: kvm_ioctls::Error,
}

impl MappedVm {
    /// Gives every region of `memory` to the VM, a slot each (KVM API 4.35, KVM_SET_USER_MEMORY_REGION).
    ///
    /// # Errors
    /// The first region that KVM refuses.
    pub(crate) fn new(fd: VmFd, memory: GuestMemoryMmap) -> Result<Self, RefusedSlot> {
        for (slot, region) in (0u32..).zip(memory.iter()) {
            let (start, size) = (region.start_addr().0, region.len());
            let argument = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: start,
                memory_size: size,
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY:
            // 1. The range is a mapping made for the guest; the process accesses it through volatile and atomic
            //    accesses only, never through references.
            // 2. `self` and every vCPU made from it hold a handle on `memory`: it stays mapped until the last of
            //    them is gone.
            unsafe { fd.set_user_memory_region(argument) }.map_err(|source| RefusedSlot { start, size, source })?;
        }
        Ok(Self { fd, memory })
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

/// A vCPU, and a handle on the memory that its guest runs in.
pub(crate) struct MappedVcpu {
    pub(crate) fd: VcpuFd,
    _memory: GuestMemoryMmap,
}
