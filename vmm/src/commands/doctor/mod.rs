//! What this host's KVM offers, whether that is sufficient, and what to do if it is not.
//!
//! [`examine`] queries the host and decides; [`Diagnosis`] is the result, which `vector14 doctor` shows. It creates a
//! VM to see whether that works, and drops it again.
//!
//! # Layout
//! - [`device`]: whether the KVM device exists, can be opened, and is KVM
//! - [`host`]: the processor and the kernel's modules
//! - `advice`: what to do about what is missing

mod advice;
pub mod device;
pub mod host;

use std::path::Path;

use serde::Serialize;

pub use crate::machine::capability::Capability;
pub use device::{Device, DeviceState};
pub use host::{Cpu, Host};

use crate::commands::config::EngineChoice;
use crate::intercept::engine::offer;

/// The results of examining a host.
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
    /// The capabilities that vector14 needs, with KVM's answers; empty if KVM could not be asked.
    pub capabilities: Vec<Capability>,
    /// The engines, and whether they can run here; the one that `engine = "auto"` selects comes first.
    pub engines: Vec<Engine>,
    /// The engine that `engine = "auto"` selects; `None` if no engine can run.
    pub auto: Option<&'static str>,
    /// What to do about what is missing, one sentence each.
    pub advice: Vec<String>,
}

/// One way to intercept faults.
#[derive(Clone, Debug, Serialize)]
pub struct Engine {
    /// The engine's name in `intercept.engine`.
    pub name: &'static str,
    /// Whether the engine can run here.
    pub available: bool,
    /// Why the engine can run here, or why not.
    pub reason: String,
}

/// Examines the KVM device at `kvm`, usually [`device::DEFAULT_PATH`], and the host around it.
#[must_use]
pub fn examine(kvm: &Path, host: &Host) -> Diagnosis {
    let (device, opened) = device::open(kvm);
    let capabilities = opened.as_ref().map_or_else(Vec::new, crate::machine::capability::ask);
    let missing = opened.and_then(|kvm| offer::missing(|number| kvm.check_extension_raw(number.into())));
    let (modules, cpu) = (host.modules(), host.cpu());
    let advice = advice::advice(&device, &modules, &cpu, &capabilities);
    let gate = gate(&device, &capabilities);
    let engines = vec![exception_bitmap(&gate, missing), gate];
    let auto = engines.iter().find(|engine| engine.available).map(|engine| engine.name);
    Diagnosis { runs: auto.is_some(), device, modules, cpu, capabilities, engines, auto, advice }
}

fn gate(device: &Device, capabilities: &[Capability]) -> Engine {
    let lacking: Vec<_> = capabilities.iter().filter(|capability| !capability.sufficient).map(|c| c.name).collect();
    let (available, reason) = match (&device.state, &lacking[..]) {
        (DeviceState::Usable { .. }, []) => (true, "this KVM has everything that it needs".to_owned()),
        (DeviceState::Usable { .. }, [_, ..]) => (false, format!("this KVM lacks {}", lacking.join(", "))),
        (state, _) => (false, state.to_string()),
    };
    Engine { name: EngineChoice::Gate.name(), available, reason }
}

/// Needs what `gate` needs, and an extension that only a patched KVM has.
fn exception_bitmap(gate: &Engine, missing: Option<&'static str>) -> Engine {
    let (available, reason) = match (gate.available, missing) {
        (true, None) => (true, "this KVM lets faults leave the guest before they are delivered".to_owned()),
        (true, Some(missing)) => (
            false,
            format!(
                "this KVM lacks {missing}; no stock KVM has that, and kvm/README.md says how to build one that does"
            ),
        ),
        (false, _) => (false, gate.reason.clone()),
    };
    Engine { name: EngineChoice::ExceptionBitmap.name(), available, reason }
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
        assert_eq!(exception_bitmap(&engine, None).reason, engine.reason);
    }

    #[test]
    fn a_stock_kvm_has_one_engine_and_a_changed_one_two() {
        let device = Device { path: "/dev/kvm".into(), state: DeviceState::Usable { api_version: 12 } };
        let gate = gate(&device, &[]);
        let stock = exception_bitmap(&gate, Some("exits at #PF"));
        assert!(gate.available && !stock.available);
        assert!(
            stock.reason.contains("lacks exits at #PF") && stock.reason.contains("kvm/README.md"),
            "{}",
            stock.reason
        );
        assert!(exception_bitmap(&gate, None).available);
    }
}
