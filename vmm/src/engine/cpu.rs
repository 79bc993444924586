//! One vCPU's side of an engine.

use vector14_hook::{Registers, Verdict};

use super::caught::{At, Caught};
use super::exception_bitmap;
use super::gate::{self, GateCpu, NoFrame};
use super::length::Lengths;
use super::outcome::{ApplyError, Outcome};
use crate::control::Control;
use crate::memory::Memory;
use crate::vcpu::{Vcpu, VmExit};

/// One vCPU's side of an engine.
pub(crate) struct EngineCpu {
    kind: Kind,
    lengths: Lengths,
}

enum Kind {
    Off,
    Gate(GateCpu),
    ExceptionBitmap,
}

impl EngineCpu {
    pub(super) fn off() -> Self {
        Self { kind: Kind::Off, lengths: Lengths::default() }
    }

    pub(super) fn gate(gate: GateCpu) -> Self {
        Self { kind: Kind::Gate(gate), lengths: Lengths::default() }
    }

    pub(crate) fn exception_bitmap() -> Self {
        Self { kind: Kind::ExceptionBitmap, lengths: Lengths::default() }
    }

    /// Whether `exit` is a guest #PF.
    pub(crate) fn recognise(
        &mut self,
        exit: &VmExit,
        cpu: &mut Vcpu,
        memory: &Memory,
    ) -> Option<Result<Caught, NoFrame>> {
        match &mut self.kind {
            Kind::Off => None,
            Kind::Gate(gate) => gate.recognise(exit, cpu, memory),
            Kind::ExceptionBitmap => exception_bitmap::recognise(exit, cpu).map(Ok),
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
        let outcome = Outcome::of(verdict, registers, caught, &mut self.lengths, memory)?;
        match &caught.at {
            At::Stub(stub) => gate::apply(cpu, memory, caught, stub, &outcome),
            At::Instruction { delivering } => exception_bitmap::apply(cpu, caught, *delivering, &outcome),
        }
    }

    /// Keeps the interception in place, after an exit that was no fault.
    pub(crate) fn inspect(&mut self, cpu: &mut Vcpu, memory: &Memory, control: &Control, thorough: bool) {
        match &mut self.kind {
            Kind::Off | Kind::ExceptionBitmap => {}
            Kind::Gate(gate) => gate.inspect(cpu, memory, control, thorough),
        }
    }
}
