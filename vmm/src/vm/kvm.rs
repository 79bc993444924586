//! The machine as KVM makes it: the device and what it must offer, interrupt controllers, vCPUs.

use std::ffi::CString;
use std::path::Path;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::error::{VmError, call};
use crate::cpuid;
use crate::sys::mapped::MappedVm;
use crate::vcpu::Vcpu;

/// Three pages that Intel CPUs need for real mode, where no RAM is (KVM API 4.8, KVM_SET_TSS_ADDR).
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Opens KVM and looks for what no VM can do without.
pub(super) fn open(path: &Path) -> Result<Kvm, VmError> {
    let no_kvm = |source| VmError::NoKvm { path: path.to_owned(), source };
    let name = CString::new(path.as_os_str().as_encoded_bytes());
    let name = name.map_err(|_| no_kvm(kvm_ioctls::Error::new(libc::EINVAL)))?;
    let kvm = Kvm::new_with_path(name).map_err(no_kvm)?;
    // KVM API 4.1: any other version is to be refused, and there has never been another.
    const API_VERSION: i32 = 12;
    if kvm.get_api_version() != API_VERSION {
        return Err(VmError::NotKvm { path: path.to_owned() });
    }
    let needed = [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    ];
    if let Some((_, name)) = needed.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(VmError::MissingCapability(name));
    }
    let sync_regs = kvm.check_extension_int(Cap::SyncRegs);
    let needed = (kvm_bindings::KVM_SYNC_X86_REGS | kvm_bindings::KVM_SYNC_X86_SREGS).cast_signed();
    if sync_regs & needed != needed {
        return Err(VmError::MissingCapability("KVM_CAP_SYNC_REGS for registers and system registers"));
    }
    Ok(kvm)
}

pub(super) fn create_interrupt_controllers(vm: &VmFd) -> Result<(), VmError> {
    call("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS_ADDRESS))?;
    call("KVM_CREATE_IRQCHIP", vm.create_irq_chip())
}

pub(super) fn create_vcpus(kvm: &Kvm, machine: &MappedVm, vcpus: u32) -> Result<Vec<Vcpu>, VmError> {
    let supported = call("KVM_GET_SUPPORTED_CPUID", kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
    let run_size = call("KVM_GET_VCPU_MMAP_SIZE", kvm.get_vcpu_mmap_size())?;
    (0..vcpus)
        .map(|index| {
            let mut vcpu = Vcpu::new(call("KVM_CREATE_VCPU", machine.create_vcpu(index))?, index, run_size);
            let mut cpuid = supported.clone();
            cpuid::adapt(&mut cpuid, index, vcpus);
            call("KVM_SET_CPUID2", vcpu.fd().set_cpuid2(&cpuid))?;
            Ok(vcpu)
        })
        .collect()
}
