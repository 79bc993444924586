//! Which engine a VM gets.

use std::sync::Arc;

use kvm_bindings::KVM_CAP_X86_GUEST_MODE;

use super::exception_bitmap::{ExceptionBitmap, offer};
use super::gate::{ArmWhen, GateEngine, Room};
use super::interface::Engine;
use super::off::Off;
use crate::intercept::config::{EngineChoice, ErrorCodeFilter, InterceptConfig};
use crate::sys::mapped::MappedVm;

/// Why an engine can't be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The config asks for `exception-bitmap`, which KVM does not offer.
    #[error("intercept.engine = \"exception-bitmap\": this host's KVM lacks {lacks}")]
    NotOffered {
        /// What KVM lacks.
        lacks: &'static str,
    },
    /// The config asks for an error-code filter, which KVM does not offer.
    #[error("intercept.error_code needs the engine exception-bitmap, and this host's KVM lacks {lacks}")]
    NoFilter {
        /// What KVM lacks.
        lacks: &'static str,
    },
    /// The config asks for an error-code filter, and the engine is `gate`.
    #[error("intercept.error_code needs the engine exception-bitmap: gate sees every fault")]
    FilterOnGate,
    /// The guest may run guests of its own, the engine is `gate`, and KVM does not report which of them exits.
    #[error(
        "vm.nested = true: this host's KVM does not report when a vCPU runs a nested guest \
         (KVM_CAP_X86_GUEST_MODE), so the engine gate would mistake the nested guest's faults for the guest's"
    )]
    NestedGate,
    /// KVM refused a capability that it offers.
    #[error("KVM_ENABLE_CAP for exits at #PF failed: {0}")]
    Refused(kvm_ioctls::Error),
}

/// Selects the engine that `config` asks for on this machine; `room` is what is known of places for the stubs of `gate`.
pub(crate) fn select(
    config: &InterceptConfig,
    nested: bool,
    machine: &MappedVm,
    room: Room,
    arm_when: ArmWhen,
) -> Result<Arc<dyn Engine>, EngineError> {
    let missing = offer::missing(|capability| machine.check_extension(capability));
    match (config.engine, missing, config.error_code) {
        (EngineChoice::Off, _, _) => Ok(Arc::new(Off)),
        (EngineChoice::Auto | EngineChoice::ExceptionBitmap, None, filter) => {
            let filter = filter.unwrap_or(ErrorCodeFilter::ALL);
            Ok(Arc::new(ExceptionBitmap::new(machine.clone(), filter).map_err(EngineError::Refused)?))
        }
        (EngineChoice::ExceptionBitmap, Some(lacks), _) => Err(EngineError::NotOffered { lacks }),
        (EngineChoice::Auto, Some(lacks), Some(_)) => Err(EngineError::NoFilter { lacks }),
        (EngineChoice::Gate, _, Some(_)) => Err(EngineError::FilterOnGate),
        (EngineChoice::Auto | EngineChoice::Gate, _, None)
            if nested && machine.check_extension(KVM_CAP_X86_GUEST_MODE) == 0 =>
        {
            Err(EngineError::NestedGate)
        }
        (EngineChoice::Auto | EngineChoice::Gate, _, None) => {
            Ok(Arc::new(GateEngine::new(room, arm_when, machine.clone())))
        }
    }
}
