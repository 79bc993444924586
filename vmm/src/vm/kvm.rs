//! The parts of the machine that KVM provides: the device and the capabilities that it must have, interrupt
//! controllers, vCPUs.

use std::ffi::CString;
use std::path::Path;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irqchip, kvm_pit_config,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::error::{VmError, call, host};
use crate::machine::acpi::{IO_APIC_ID, TIMER_PIN};
use crate::machine::capability::{self, Capability};
use crate::machine::config::VmConfig;
use crate::machine::cpuid;
use crate::machine::vcpu::Vcpu;
use crate::sys::mapped::MappedVm;

/// Address of three pages that Intel CPUs need for real mode, outside of RAM (KVM API 4.8, KVM_SET_TSS_ADDR).
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Path of the KVM device.
pub const DEFAULT_PATH: &str = "/dev/kvm";

/// Opens KVM, and checks for the capabilities that every VM needs.
pub(crate) fn open(path: &Path) -> Result<Kvm, VmError> {
    let no_kvm = |source| VmError::NoKvm { path: path.to_owned(), source };
    let name = CString::new(path.as_os_str().as_encoded_bytes());
    let name = name.map_err(|_| no_kvm(kvm_ioctls::Error::new(libc::EINVAL)))?;
    let kvm = Kvm::new_with_path(name).map_err(no_kvm)?;
    // KVM API 4.1: any other version must be refused, and there has never been another.
    const API_VERSION: i32 = 12;
    if kvm.get_api_version() != API_VERSION {
        return Err(VmError::NotKvm { path: path.to_owned() });
    }
    match capability::ask(&kvm).into_iter().find(|capability| !capability.sufficient) {
        Some(Capability { name, purpose, .. }) => Err(VmError::MissingCapability { name, purpose }),
        None => Ok(kvm),
    }
}

/// Creates the local APICs, the I/O APIC and the 8259s, and the 8254 if KVM has one.
pub(super) fn create_interrupt_controllers(vm: &VmFd) -> Result<(), VmError> {
    call("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS_ADDRESS))?;
    call("KVM_CREATE_IRQCHIP", vm.create_irq_chip())?;
    call("KVM_SET_GSI_ROUTING", vm.set_gsi_routing(&routing()?))?;
    identify_io_apic(vm)?;
    if vm.check_extension(Cap::Pit2) {
        // The speaker's port, 0x61, gates the 8254's channel 2; KVM emulates that port too (KVM API 4.71).
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        call("KVM_CREATE_PIT2", vm.create_pit2(pit))?;
    }
    Ok(())
}

/// Gives the I/O APIC the ID that the tables name, because kernels compare the two.
fn identify_io_apic(vm: &VmFd) -> Result<(), VmError> {
    let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..kvm_irqchip::default() };
    call("KVM_GET_IRQCHIP", vm.get_irqchip(&mut chip))?;
    chip.chip.ioapic.id = IO_APIC_ID.into();
    call("KVM_SET_IRQCHIP", vm.set_irqchip(&chip))
}

/// GSIs are I/O APIC pins; those below 16 are also the ISA interrupts at the 8259s. The timer is at pin 2 instead of
/// pin 0, as on every PC and in the MADT (KVM API 4.52).
fn routing() -> Result<KvmIrqRouting, VmError> {
    const PINS: u32 = 24;
    const ISA: u32 = 16;
    let timer_pin = u32::from(TIMER_PIN);
    let route = |gsi, irqchip, pin| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let isa = (0..ISA).map(|gsi| match gsi {
        0..8 => route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        _ => route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8),
    });
    let io_apic = (0..PINS).filter(|gsi| *gsi != timer_pin);
    let io_apic = io_apic.map(|gsi| route(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { timer_pin } else { gsi }));
    let entries: Vec<_> = isa.chain(io_apic).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|error| VmError::Host {
        what: "interrupt routing",
        source: std::io::Error::other(format!("{error:?}")),
    })
}

/// Creates an irqfd: a write to it raises `gsi`.
pub(super) fn interrupt(vm: &VmFd, gsi: u32) -> Result<EventFd, VmError> {
    let interrupt = host("an interrupt", EventFd::new(libc::EFD_NONBLOCK))?;
    call("KVM_IRQFD", vm.register_irqfd(&interrupt, gsi))?;
    Ok(interrupt)
}

/// Creates the vCPUs, with the CPUID that this host's KVM offers.
pub(crate) fn create_vcpus(kvm: &Kvm, machine: &MappedVm, config: &VmConfig) -> Result<Vec<Vcpu>, VmError> {
    let supported = call("KVM_GET_SUPPORTED_CPUID", cpuid::supported(kvm))?;
    let run_size = call("KVM_GET_VCPU_MMAP_SIZE", kvm.get_vcpu_mmap_size())?;
    (0..config.vcpus)
        .map(|index| {
            let mut vcpu = Vcpu::new(call("KVM_CREATE_VCPU", machine.create_vcpu(index))?, index, run_size);
            let mut cpuid = supported.clone();
            cpuid::adapt(&mut cpuid, index, config.vcpus);
            if !config.nested {
                cpuid::hide_virtualization(&mut cpuid);
            }
            call("KVM_SET_CPUID2", vcpu.fd().set_cpuid2(&cpuid))?;
            Ok(vcpu)
        })
        .collect()
}
