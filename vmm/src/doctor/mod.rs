//! What this host's KVM offers, whether that is enough, and what to do where it is not.
//!
//! [`examine`] asks and decides; [`Diagnosis`] is what it found, for `vector14 doctor` to show. It creates a VM to see
//! whether that works, and drops it again.
//!
//! # Layout
//! - [`device`]: the KVM device: is it there, may we open it, is it KVM?
//! - [`capability`]: what vector14 needs of KVM_CHECK_EXTENSION
//! - [`host`]: the processor and the kernel's modules
//! - `advice`: from what is missing to what to do

mod advice;
pub mod capability;
pub mod device;
pub mod host;

use std::path::Path;

use serde::Serialize;

pub use capability::Capability;
pub use device::{Device, DeviceState};
pub use host::{Cpu, Host};

/// What was found out about a host.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Whether guests can run here with their faults intercepted.
    pub runs: bool,
    /// The KVM device.
    pub device: Device,
    /// KVM's modules that the kernel has loaded.
    pub modules: Vec<String>,
    /// The processor.
    pub cpu: Cpu,
    /// What KVM can do of what vector14 needs; empty where KVM could not be asked.
    pub capabilities: Vec<Capability>,
    /// The engines, and whether they can run here.
    pub engines: Vec<Engine>,
    /// What to do about what is missing, a sentence each.
    pub advice: Vec<String>,
}

/// One way to intercept faults.
#[derive(Clone, Debug, Serialize)]
pub struct Engine {
    /// As `intercept.engine` names it.
    pub name: &'static str,
    /// Whether it can run here.
    pub available: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Examines the KVM device at `kvm`, usually [`device::DEFAULT_PATH`], and the host around it.
#[must_use]
pub fn examine(kvm: &Path, host: &Host) -> Diagnosis {
    let (device, opened) = device::open(kvm);
    let capabilities = opened.map_or_else(Vec::new, |kvm| capability::ask(&kvm));
    let (modules, cpu) = (host.modules(), host.cpu());
    let advice = advice::advice(&device, &modules, &cpu, &capabilities);
    let gate = gate(&device, &capabilities);
    Diagnosis {
        runs: gate.available,
        device,
        modules,
        cpu,
        capabilities,
        engines: vec![gate, exception_bitmap()],
        advice,
    }
}

fn gate(device: &Device, capabilities: &[Capability]) -> Engine {
    let lacking: Vec<_> = capabilities.iter().filter(|capability| !capability.sufficient).map(|c| c.name).collect();
    let (available, reason) = match (&device.state, &lacking[..]) {
        (DeviceState::Usable { .. }, []) => (true, "needs nothing that this KVM lacks".to_owned()),
        (DeviceState::Usable { .. }, [_, ..]) => (false, format!("this KVM lacks {}", lacking.join(", "))),
        (state, _) => (false, state.to_string()),
    };
    Engine { name: "gate", available, reason }
}

fn exception_bitmap() -> Engine {
    let reason = "this KVM does not offer it; no stock KVM lets user space intercept #PF".to_owned();
    Engine { name: "exception-bitmap", available: false, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_device_nothing_runs_and_there_is_advice() {
        let diagnosis = examine(Path::new("/nowhere/kvm"), &Host::default());
        assert!(!diagnosis.runs && diagnosis.capabilities.is_empty());
        assert!(diagnosis.engines.iter().all(|engine| !engine.available), "{diagnosis:?}");
        assert_eq!(diagnosis.engines[0].reason, "does not exist");
        assert!(!diagnosis.advice.is_empty());
    }

    #[test]
    fn a_capability_that_is_missing_rules_the_gate_out() {
        let device = Device { path: "/dev/kvm".into(), state: DeviceState::Usable { api_version: 12 } };
        let capability = Capability { name: "KVM_CAP_SYNC_REGS", value: 0, sufficient: false, purpose: "" };
        let engine = gate(&device, &[capability]);
        assert!(!engine.available);
        assert_eq!(engine.reason, "this KVM lacks KVM_CAP_SYNC_REGS");
    }
}
