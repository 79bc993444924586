//! How faults reach the host. Each engine recognises its own exits, says what the interrupted context was, and turns
//! a verdict into machine state.

mod gate;

use std::sync::Arc;
use std::time::Instant;

use vector14_hook::{Registers, Va, Verdict};

pub(crate) use self::gate::ArmWhen;
pub(crate) use self::gate::{ApplyError, Caught, NoFrame};
use self::gate::{GateCpu, Table};
use crate::config::EngineChoice;
use crate::control::Control;
use crate::memory::Memory;
use crate::vcpu::{Vcpu, VmExit};

/// The engine of one VM.
#[derive(Clone)]
pub(crate) enum Engine {
    /// No fault is intercepted.
    Off,
    /// IDT entry 14 leads to a stub.
    Gate(Arc<Table>),
}

/// One vCPU's side of it.
#[expect(clippy::large_enum_variant, reason = "there is one a vCPU")]
pub(crate) enum EngineCpu {
    Off,
    Gate(GateCpu),
}

impl Engine {
    /// The engine that `choice` comes to; `stub` is where the user, or else the kernel, has room for the stub.
    pub(crate) fn new(choice: EngineChoice, stub: Option<Va>, arm_when: ArmWhen) -> Self {
        match choice {
            EngineChoice::Off => Self::Off,
            EngineChoice::Auto | EngineChoice::Gate => Self::Gate(Arc::new(Table::new(stub, arm_when))),
        }
    }

    /// Its name in the summary.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Gate(_) => "gate",
        }
    }

    pub(crate) fn for_cpu(&self) -> EngineCpu {
        match self {
            Self::Off => EngineCpu::Off,
            Self::Gate(table) => EngineCpu::Gate(GateCpu::new(Arc::clone(table))),
        }
    }

    /// When faults began to be intercepted.
    pub(crate) fn armed_at(&self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Gate(table) => table.armed_at(),
        }
    }

    /// Has interception put into the guest, or taken out, at the vCPUs' next inspection.
    pub(crate) fn want(&self, wanted: bool) {
        match self {
            Self::Off => {}
            Self::Gate(table) => table.want(wanted),
        }
    }

    /// Whether interception is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Gate(table) => table.is_wanted(),
        }
    }

    /// Whether faults are intercepted at this moment.
    pub(crate) fn is_in_place(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Gate(table) => table.in_place(),
        }
    }

    /// Sentences for the summary.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        match self {
            Self::Off => Vec::new(),
            Self::Gate(table) => table.take_notes(),
        }
    }
}

impl EngineCpu {
    /// Whether `exit` is a guest #PF.
    pub(crate) fn recognise(
        &mut self,
        exit: &VmExit,
        cpu: &mut Vcpu,
        memory: &Memory,
    ) -> Option<Result<Caught, NoFrame>> {
        match self {
            Self::Off => None,
            Self::Gate(gate) => gate.recognise(exit, cpu, memory),
        }
    }

    /// Carries `verdict` out, with the interrupted context as the hooks have left it in `registers`.
    pub(crate) fn apply(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        caught: &Caught,
        verdict: &Verdict,
        registers: &Registers,
    ) -> Result<(), ApplyError> {
        match self {
            Self::Off => Ok(()),
            Self::Gate(gate) => gate.apply(cpu, memory, caught, verdict, registers),
        }
    }

    /// Keeps the interception in place, after an exit that was no fault.
    pub(crate) fn inspect(&mut self, cpu: &mut Vcpu, memory: &Memory, control: &Control, thorough: bool) {
        match self {
            Self::Off => {}
            Self::Gate(gate) => gate.inspect(cpu, memory, control, thorough),
        }
    }
}
