//! How faults reach the host. Each engine recognises its own exits, says what the interrupted context was, and turns
//! a verdict's outcome into machine state.
//!
//! # Layout
//! - [`exception_bitmap`]: faults leave the guest before they are delivered, where KVM has been taught to
//! - [`gate`]: IDT entry 14 leads to a stub that leaves the guest, on any KVM
//! - [`cpu`]: one vCPU's side of whichever engine it is
//! - [`caught`], [`outcome`]: a fault, and what a verdict on it comes to
//! - [`length`], [`registers`]: what both engines need for that

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
use crate::config::{Config, EngineChoice, ErrorCodeFilter};
use crate::sys::mapped::MappedVm;
use crate::vcpu::Vcpu;

/// The engine of one VM.
#[derive(Clone)]
pub(crate) enum Engine {
    /// No fault is intercepted.
    Off,
    /// IDT entry 14 leads to a stub.
    Gate(Arc<Table>),
    /// Faults leave the guest before they are delivered.
    ExceptionBitmap(Arc<Bitmap>),
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine `exception-bitmap` was asked for.
    #[error("intercept.engine = \"exception-bitmap\": this host's KVM lacks {lacks}")]
    NotOffered {
        /// What it takes.
        lacks: &'static str,
    },
    /// A filter was asked for.
    #[error("intercept.error_code takes the engine exception-bitmap, and this host's KVM lacks {lacks}")]
    NoFilter {
        /// What it takes.
        lacks: &'static str,
    },
    /// A filter was asked for, and the engine `gate`.
    #[error("intercept.error_code takes the engine exception-bitmap: gate sees every fault")]
    FilterOnGate,
    /// The guest may run guests of its own, and the engine is `gate`.
    #[error(
        "vm.nested = true: this host's KVM does not say when a vCPU runs a guest of the guest's \
         (KVM_CAP_X86_GUEST_MODE), and the engine gate would take that one's faults for the guest's"
    )]
    NestedGate,
    /// KVM offers what it then refuses.
    #[error("KVM_ENABLE_CAP for exits at #PF failed: {0}")]
    Refused(kvm_ioctls::Error),
}

impl Engine {
    /// The engine that `config` comes to on this machine; `room` is what is known of places for the stubs of `gate`.
    pub(crate) fn new(config: &Config, machine: &MappedVm, room: Room, arm_when: ArmWhen) -> Result<Self, EngineError> {
        let Config { intercept, vm, .. } = config;
        let missing = offer::missing(|capability| machine.check_extension(capability));
        let bitmap = || {
            let filter = intercept.error_code.unwrap_or(ErrorCodeFilter::ALL);
            let bitmap = Bitmap::new(machine.clone(), filter).map_err(EngineError::Refused)?;
            Ok(Self::ExceptionBitmap(Arc::new(bitmap)))
        };
        match (intercept.engine, missing, intercept.error_code) {
            (EngineChoice::Off, _, _) => Ok(Self::Off),
            (EngineChoice::Auto | EngineChoice::ExceptionBitmap, None, _) => bitmap(),
            (EngineChoice::ExceptionBitmap, Some(lacks), _) => Err(EngineError::NotOffered { lacks }),
            (EngineChoice::Auto, Some(lacks), Some(_)) => Err(EngineError::NoFilter { lacks }),
            (EngineChoice::Gate, _, Some(_)) => Err(EngineError::FilterOnGate),
            (EngineChoice::Auto | EngineChoice::Gate, _, None)
                if vm.nested && machine.check_extension(KVM_CAP_X86_GUEST_MODE) == 0 =>
            {
                Err(EngineError::NestedGate)
            }
            (EngineChoice::Auto | EngineChoice::Gate, _, None) => {
                Ok(Self::Gate(Arc::new(Table::new(room, arm_when, Box::new(machine.clone())))))
            }
        }
    }

    /// Its name in the summary.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Off => EngineChoice::Off.name(),
            Self::Gate(_) => EngineChoice::Gate.name(),
            Self::ExceptionBitmap(_) => EngineChoice::ExceptionBitmap.name(),
        }
    }

    /// A vCPU's side of it.
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

    /// Whether vCPUs must come out now and then to be looked after, even where nothing else makes them.
    pub(crate) fn needs_beat(&self) -> bool {
        match self {
            Self::Off | Self::ExceptionBitmap(_) => false,
            Self::Gate(_) => true,
        }
    }

    /// The vCPUs are about to be looked after.
    pub(crate) fn beat(&self) {
        match self {
            Self::Off | Self::ExceptionBitmap(_) => {}
            Self::Gate(table) => table.beat(),
        }
    }

    /// When faults began to be intercepted.
    pub(crate) fn armed_at(&self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Gate(table) => table.armed_at(),
            Self::ExceptionBitmap(bitmap) => Some(bitmap.since()),
        }
    }

    /// Has interception put into the guest, or taken out, at the vCPUs' next inspection.
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

    /// Sentences for the summary of a VM that has run since `start`.
    pub(crate) fn take_notes(&self, start: Instant) -> Vec<String> {
        match self {
            Self::Off => Vec::new(),
            Self::Gate(table) => table.take_notes(start),
            Self::ExceptionBitmap(bitmap) => bitmap.take_notes(),
        }
    }
}
