//! What a VM needs of KVM_CHECK_EXTENSION (KVM API, 4.4).

use kvm_bindings::{
    KVM_CAP_EXT_CPUID, KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_IRQCHIP, KVM_CAP_IRQFD, KVM_CAP_MAX_VCPUS, KVM_CAP_SYNC_REGS,
    KVM_CAP_USER_MEMORY, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
};
use kvm_ioctls::Kvm;
use serde::Serialize;

/// What KVM answered about one capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// The capability's name in the KVM API.
    pub name: &'static str,
    /// KVM's answer: 0 for no; other values depend on the capability, as the KVM API says.
    pub value: i32,
    /// Whether the answer is sufficient.
    pub sufficient: bool,
    /// What vector14 uses the capability for.
    pub purpose: &'static str,
}

/// A capability that vector14 needs, and its purpose.
struct Need {
    name: &'static str,
    number: u32,
    enough: Enough,
    purpose: &'static str,
}

/// When an answer is sufficient.
enum Enough {
    Any,
    Bits(u32),
}

const NEEDS: [Need; 7] = [
    Need {
        name: "KVM_CAP_USER_MEMORY",
        number: KVM_CAP_USER_MEMORY,
        enough: Enough::Any,
        purpose: "guest RAM in memory of the VMM",
    },
    Need {
        name: "KVM_CAP_IRQCHIP",
        number: KVM_CAP_IRQCHIP,
        enough: Enough::Any,
        purpose: "interrupt controllers in KVM",
    },
    Need { name: "KVM_CAP_IRQFD", number: KVM_CAP_IRQFD, enough: Enough::Any, purpose: "the serial port's interrupt" },
    Need {
        name: "KVM_CAP_EXT_CPUID",
        number: KVM_CAP_EXT_CPUID,
        enough: Enough::Any,
        purpose: "the CPUID that a guest sees",
    },
    Need {
        name: "KVM_CAP_IMMEDIATE_EXIT",
        number: KVM_CAP_IMMEDIATE_EXIT,
        enough: Enough::Any,
        purpose: "stopping a vCPU without a race",
    },
    Need {
        name: "KVM_CAP_SYNC_REGS",
        number: KVM_CAP_SYNC_REGS,
        enough: Enough::Bits(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS),
        purpose: "a fault's registers without an ioctl: bits 0 (regs) and 1 (sregs)",
    },
    Need {
        name: "KVM_CAP_MAX_VCPUS",
        number: KVM_CAP_MAX_VCPUS,
        enough: Enough::Any,
        purpose: "maximum number of vCPUs",
    },
];

/// Asks KVM for every capability that a VM needs.
pub(crate) fn ask(kvm: &Kvm) -> Vec<Capability> {
    NEEDS.iter().map(|need| need.judge(kvm.check_extension_raw(need.number.into()))).collect()
}

impl Need {
    fn judge(&self, value: i32) -> Capability {
        let bits = u32::try_from(value).unwrap_or(0);
        let sufficient = match self.enough {
            Enough::Any => bits > 0,
            Enough::Bits(wanted) => bits & wanted == wanted,
        };
        Capability { name: self.name, value, sufficient, purpose: self.purpose }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_registers_need_both_halves() {
        let need = NEEDS.iter().find(|need| need.name == "KVM_CAP_SYNC_REGS").unwrap();
        let judged = [-1, 0, 1, 2, 3, 7].map(|value| need.judge(value).sufficient);
        assert_eq!(judged, [false, false, false, false, true, true]);
    }
}
