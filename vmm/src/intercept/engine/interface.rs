//! What an engine does. A new engine implements both traits, and [`select`](super::select()) gets a line for it.

use std::time::Instant;

use vector14_hook::Pa;

use super::caught::{Caught, NoFrame};
use super::outcome::{ApplyError, Outcome};
use crate::machine::memory::Memory;
use crate::machine::stop::Stop;
use crate::machine::vcpu::{Vcpu, VmExit};
use crate::machine::vcpus::Vcpus;

/// The engine of one VM.
pub(crate) trait Engine: Send + Sync {
    /// Its name in the config and in the summary.
    fn name(&self) -> &'static str;

    /// Creates one vCPU's side of the engine.
    fn for_cpu(&self, cpu: &mut Vcpu) -> Box<dyn EngineCpu>;

    /// Whether it can intercept faults at all.
    fn can_intercept(&self) -> bool {
        true
    }

    /// Requests interception, or its removal, at the vCPUs' next inspection.
    fn want(&self, wanted: bool);

    /// Whether interception is wanted.
    fn is_wanted(&self) -> bool;

    /// Whether faults are intercepted at this moment.
    fn is_in_place(&self) -> bool;

    /// When interception began.
    fn armed_at(&self) -> Option<Instant>;

    /// Takes the notes for the summary of a VM that has run since `start`.
    fn take_notes(&self, start: Instant) -> Vec<String>;

    /// Whether vCPUs must exit at intervals for inspection, even if nothing else makes them exit.
    fn needs_beat(&self) -> bool {
        false
    }

    /// Called at intervals, right before the vCPUs are made to exit for inspection.
    fn beat(&self) {}
}

/// One vCPU's side of an engine.
pub(crate) trait EngineCpu: Send {
    /// Returns the fault if `exit` is a guest #PF.
    fn recognise(&mut self, exit: &VmExit, cpu: &mut Vcpu, memory: &Memory) -> Option<Result<Caught, NoFrame>>;

    /// Applies the outcome of a verdict on `caught`, the fault that was recognised last.
    fn apply(&mut self, cpu: &mut Vcpu, memory: &Memory, caught: &Caught, outcome: &Outcome) -> Result<(), ApplyError>;

    /// Keeps the interception in place after an exit that was not a fault. A `thorough` inspection comes at intervals.
    /// `Some` ends the VM.
    fn inspect(&mut self, _cpu: &mut Vcpu, _memory: &Memory, _vcpus: &Vcpus, _thorough: bool) -> Option<Stop> {
        None
    }

    /// Carries out a guest write to memory that the engine has made read-only; `faults` is the number of faults seen
    /// so far. Returns `None` if the engine has not made that memory read-only.
    fn write(
        &mut self,
        _cpu: &mut Vcpu,
        _memory: &Memory,
        _vcpus: &Vcpus,
        _address: Pa,
        _faults: u64,
    ) -> Option<Result<(), Stop>> {
        None
    }

    /// Undoes what may have kept KVM from continuing. Returns `None` if there is nothing to undo.
    fn give_way(&mut self, _cpu: &mut Vcpu, _vcpus: &Vcpus, _failure: &str) -> Option<Result<(), Stop>> {
        None
    }
}
