//! One vCPU's side of an engine.

use vector14_hook::{Pa, Registers, Verdict};

use super::caught::{At, Caught};
use super::exception_bitmap;
use super::gate::{self, GateCpu, LostPage, NoFrame};
use super::length::Lengths;
use super::outcome::{ApplyError, Outcome};
use crate::machine::memory::Memory;
use crate::machine::stop::Stop;
use crate::machine::vcpu::{Vcpu, VmExit};
use crate::machine::vcpus::Vcpus;

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

    /// Returns the fault if `exit` is a guest #PF.
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

    /// Applies `verdict`; `registers` are the interrupted context's, as the hooks left them.
    pub(crate) fn apply(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        caught: &Caught,
        verdict: &Verdict,
        registers: &Registers,
    ) -> Result<(), ApplyError> {
        if matches!(verdict, Verdict::Stop(_)) {
            // The vCPU does not run again.
            return Ok(());
        }
        let outcome = Outcome::of(verdict, registers, caught, &mut self.lengths, memory)?;
        match &caught.at {
            At::Stub(stub) => gate::apply(cpu, memory, caught, stub, &outcome),
            At::Instruction { delivering } => exception_bitmap::apply(cpu, caught, *delivering, &outcome),
        }
    }

    /// Keeps the interception in place after an exit that was not a fault. `Some` ends the VM.
    pub(crate) fn inspect(&mut self, cpu: &mut Vcpu, memory: &Memory, vcpus: &Vcpus, thorough: bool) -> Option<Stop> {
        match &mut self.kind {
            Kind::Off | Kind::ExceptionBitmap => None,
            Kind::Gate(gate) => gate.inspect(cpu, memory, vcpus, thorough).err().map(crash),
        }
    }

    /// Carries out a guest write to memory that the engine has made read-only; `faults` is the number of faults seen
    /// so far. Returns `None` if the engine has not made that memory read-only.
    pub(crate) fn write(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        vcpus: &Vcpus,
        address: Pa,
        faults: u64,
    ) -> Option<Result<(), Stop>> {
        let Kind::Gate(gate) = &mut self.kind else { return None };
        let mut data = [0; 8];
        let length = cpu.mmio_data().len().min(data.len());
        data[..length].copy_from_slice(&cpu.mmio_data()[..length]);
        done(gate.write(cpu, memory, vcpus, address, &data[..length], faults))
    }

    /// Undoes what may have kept KVM from continuing. Returns `None` if there is nothing to undo.
    pub(crate) fn give_way(&mut self, cpu: &mut Vcpu, vcpus: &Vcpus, failure: &str) -> Option<Result<(), Stop>> {
        let Kind::Gate(gate) = &mut self.kind else { return None };
        done(gate.give_way(cpu, vcpus, failure))
    }
}

fn done(result: Result<bool, LostPage>) -> Option<Result<(), Stop>> {
    match result {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(lost) => Some(Err(crash(lost))),
    }
}

fn crash(lost: LostPage) -> Stop {
    Stop::Crash { detail: lost.to_string() }
}
