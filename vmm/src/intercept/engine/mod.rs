//! How faults reach the host. Each engine recognises its own exits, reports the context that the fault interrupted,
//! and turns a verdict's outcome into machine state.
//!
//! # Layout
//! - [`exception_bitmap`]: faults exit before they are delivered; needs a change to KVM
//! - [`gate`]: IDT entry 14 points at a stub that exits; works on any KVM
//! - [`cpu`]: one vCPU's side of the engine in use
//! - [`caught`], [`outcome`]: a fault, and the outcome of a verdict on it
//! - [`length`], [`registers`]: instruction lengths and register conversion, for both engines

mod caught;
mod cpu;
mod exception_bitmap;
mod gate;
mod length;
mod outcome;
mod registers;

use std::sync::Arc;
use std::time::Instant;

use kvm_bindings::KVM_CAP_X86_GUEST_MODE;

pub(crate) use self::caught::Caught;
pub(crate) use self::cpu::EngineCpu;
use self::exception_bitmap::Bitmap;
pub(crate) use self::exception_bitmap::offer;
pub(crate) use self::gate::{ArmWhen, Room};
use self::gate::{GateCpu, Table};
use crate::intercept::config::{EngineChoice, ErrorCodeFilter, InterceptConfig};
use crate::machine::vcpu::Vcpu;
use crate::sys::mapped::MappedVm;

/// The engine of one VM.
#[derive(Clone)]
pub(crate) enum Engine {
    /// No fault is intercepted.
    Off,
    /// IDT entry 14 points at a stub.
    Gate(Arc<Table>),
    /// Faults exit before they are delivered.
    ExceptionBitmap(Arc<Bitmap>),
}

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

impl Engine {
    /// Selects the engine that `config` asks for on this machine; `room` is what is known of places for the stubs of
    /// `gate`.
    pub(crate) fn new(
        config: &InterceptConfig,
        nested: bool,
        machine: &MappedVm,
        room: Room,
        arm_when: ArmWhen,
    ) -> Result<Self, EngineError> {
        let missing = offer::missing(|capability| machine.check_extension(capability));
        let bitmap = || {
            let filter = config.error_code.unwrap_or(ErrorCodeFilter::ALL);
            let bitmap = Bitmap::new(machine.clone(), filter).map_err(EngineError::Refused)?;
            Ok(Self::ExceptionBitmap(Arc::new(bitmap)))
        };
        match (config.engine, missing, config.error_code) {
            (EngineChoice::Off, _, _) => Ok(Self::Off),
            (EngineChoice::Auto | EngineChoice::ExceptionBitmap, None, _) => bitmap(),
            (EngineChoice::ExceptionBitmap, Some(lacks), _) => Err(EngineError::NotOffered { lacks }),
            (EngineChoice::Auto, Some(lacks), Some(_)) => Err(EngineError::NoFilter { lacks }),
            (EngineChoice::Gate, _, Some(_)) => Err(EngineError::FilterOnGate),
            (EngineChoice::Auto | EngineChoice::Gate, _, None)
                if nested && machine.check_extension(KVM_CAP_X86_GUEST_MODE) == 0 =>
            {
                Err(EngineError::NestedGate)
            }
            (EngineChoice::Auto | EngineChoice::Gate, _, None) => {
                Ok(Self::Gate(Arc::new(Table::new(room, arm_when, Box::new(machine.clone())))))
            }
        }
    }

    /// Name of the engine in the summary.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Off => EngineChoice::Off.name(),
            Self::Gate(_) => EngineChoice::Gate.name(),
            Self::ExceptionBitmap(_) => EngineChoice::ExceptionBitmap.name(),
        }
    }

    /// Creates one vCPU's side of the engine.
    pub(crate) fn for_cpu(&self, cpu: &mut Vcpu) -> EngineCpu {
        match self {
            Self::Off => EngineCpu::off(),
            Self::Gate(table) => EngineCpu::gate(GateCpu::new(Arc::clone(table))),
            Self::ExceptionBitmap(_) => {
                cpu.sync_events();
                EngineCpu::exception_bitmap()
            }
        }
    }

    /// Whether vCPUs must exit at intervals for inspection, even if nothing else makes them exit.
    pub(crate) fn needs_beat(&self) -> bool {
        match self {
            Self::Off | Self::ExceptionBitmap(_) => false,
            Self::Gate(_) => true,
        }
    }

    /// Called at intervals, right before the vCPUs are made to exit for inspection.
    pub(crate) fn beat(&self) {
        match self {
            Self::Off | Self::ExceptionBitmap(_) => {}
            Self::Gate(table) => table.beat(),
        }
    }

    /// When interception began.
    pub(crate) fn armed_at(&self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Gate(table) => table.armed_at(),
            Self::ExceptionBitmap(bitmap) => Some(bitmap.since()),
        }
    }

    /// Requests interception, or its removal, at the vCPUs' next inspection.
    pub(crate) fn want(&self, wanted: bool) {
        match self {
            Self::Off => {}
            Self::Gate(table) => table.want(wanted),
            Self::ExceptionBitmap(bitmap) => bitmap.want(wanted),
        }
    }

    /// Whether interception is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Gate(table) => table.is_wanted(),
            Self::ExceptionBitmap(bitmap) => bitmap.is_on(),
        }
    }

    /// Whether faults are intercepted at this moment.
    pub(crate) fn is_in_place(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Gate(table) => table.in_place(),
            Self::ExceptionBitmap(bitmap) => bitmap.is_on(),
        }
    }

    /// Takes the notes for the summary of a VM that has run since `start`.
    pub(crate) fn take_notes(&self, start: Instant) -> Vec<String> {
        match self {
            Self::Off => Vec::new(),
            Self::Gate(table) => table.take_notes(start),
            Self::ExceptionBitmap(bitmap) => bitmap.take_notes(),
        }
    }
}
