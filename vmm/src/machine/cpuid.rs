//! The guest's CPUID: what KVM supports, without what an interceptor can't work with.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Error, Kvm};

/// CPUID.1, ECX bit 24: the local APIC's timer has TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// CPUID.1, ECX bit 31: a hypervisor is present. Linux looks for kvm-clock only then.
const HYPERVISOR: u32 = 1 << 31;
/// CPUID.1, ECX bit 5: VT-x.
const VMX: u32 = 1 << 5;
/// CPUID.80000001h, ECX bit 2: AMD-V.
const SVM: u32 = 1 << 2;
/// CPUID.1, EDX bit 28: EBX bits 23 to 16 count logical processors.
const HTT: u32 = 1 << 28;
/// CPUID.(7,1), EAX bit 17: FRED, which has no IDT.
const FRED: u32 = 1 << 17;

/// KVM's supported CPUID, with TSC-deadline mode: KVM_GET_SUPPORTED_CPUID leaves that mode out, and
/// KVM_CAP_TSC_DEADLINE_TIMER reports it (KVM API 4.46).
pub(crate) fn supported(kvm: &Kvm) -> Result<CpuId, Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for entry in cpuid.as_mut_slice().iter_mut().filter(|entry| entry.function == 1) {
            entry.ecx |= TSC_DEADLINE;
        }
    }
    Ok(cpuid)
}

/// Adapts KVM's supported CPUID to vCPU `index` of `vcpus`.
pub(crate) fn adapt(cpuid: &mut CpuId, index: u32, vcpus: u32) {
    for entry in cpuid.as_mut_slice() {
        adapt_entry(entry, index, vcpus);
    }
}

/// Hides AMD-V and VT-x, so that the guest can't run guests of its own.
pub(crate) fn hide_virtualization(cpuid: &mut CpuId) {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => entry.ecx &= !VMX,
            0x8000_0001 => entry.ecx &= !SVM,
            // Revision and features of AMD-V (APM vol. 3, Fn8000_000A).
            0x8000_000a => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            _ => {}
        }
    }
}

fn adapt_entry(entry: &mut kvm_cpuid_entry2, index: u32, vcpus: u32) {
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ecx |= HYPERVISOR;
            entry.edx |= if vcpus > 1 { HTT } else { 0 };
            entry.ebx = (entry.ebx & 0xffff) | (vcpus & 0xff) << 16 | index << 24;
        }
        (7, 1) => entry.eax &= !FRED,
        // One package, one core per vCPU: level 0 has one thread, level 1 all cores (SDM vol. 2A, CPUID leaf 0BH).
        (0xb | 0x1f, level) => {
            const THREAD: u32 = 1;
            const CORE: u32 = 2;
            (entry.eax, entry.ebx, entry.ecx) = match level {
                0 => (0, 1, THREAD << 8),
                1 => (vcpus.next_power_of_two().trailing_zeros(), vcpus, CORE << 8 | 1),
                _ => (0, 0, level),
            };
            entry.edx = index;
        }
        // Number of cores minus one, and the width of the core number in the APIC ID (APM vol. 3, Fn8000_0008).
        (0x8000_0008, _) => entry.ecx = (vcpus - 1) | vcpus.next_power_of_two().trailing_zeros() << 12,
        // KVM leaves the brand string to the VMM; the guest's CPU is the host's.
        (0x8000_0002..=0x8000_0004, _) => {
            let host = __cpuid(entry.function);
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (host.eax, host.ebx, host.ecx, host.edx);
        }
        (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx) = (index, index, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(function: u32, index: u32, vcpu: u32) -> kvm_cpuid_entry2 {
        let all = !0;
        let mut entry = kvm_cpuid_entry2 { function, index, eax: all, ebx: all, ecx: 0, edx: 0, ..Default::default() };
        adapt_entry(&mut entry, vcpu, 4);
        entry
    }

    #[test]
    fn fred_is_masked_and_the_hypervisor_bit_set() {
        assert_eq!(adapted(7, 1, 0).eax, !FRED);
        assert_eq!(adapted(7, 0, 0).eax, !0);
        assert_eq!(adapted(1, 0, 0).ecx, HYPERVISOR);
    }

    #[test]
    fn virtualization_is_hidden_and_nothing_else() {
        let all = |function| kvm_cpuid_entry2 { function, eax: !0, ebx: !0, ecx: !0, edx: !0, ..Default::default() };
        let mut cpuid = CpuId::from_entries(&[1, 7, 0x8000_0001, 0x8000_000a].map(all)).unwrap();
        hide_virtualization(&mut cpuid);
        let ecx: Vec<u32> = cpuid.as_slice().iter().map(|entry| entry.ecx).collect();
        assert_eq!(ecx, [!VMX, !0, !SVM, 0]);
        assert!(cpuid.as_slice()[..3].iter().all(|entry| (entry.eax, entry.ebx, entry.edx) == (!0, !0, !0)));
    }

    #[test]
    fn every_vcpu_has_an_apic_id_of_its_own() {
        assert_eq!(adapted(1, 0, 3).ebx, 0x0304_ffff);
        assert_eq!(adapted(0xb, 1, 3).edx, 3);
        assert_eq!(adapted(0xb, 1, 3).eax, 2);
        assert_eq!(adapted(0x8000_001e, 0, 3).eax, 3);
    }
}
