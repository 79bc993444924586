//! Engine `off`: no fault is intercepted.

use std::time::Instant;

use super::caught::{Caught, NoFrame};
use super::interface::{Engine, EngineCpu};
use super::outcome::{ApplyError, Outcome};
use crate::intercept::config::EngineChoice;
use crate::machine::memory::Memory;
use crate::machine::vcpu::{Vcpu, VmExit};

/// The engine, and each vCPU's side of it.
pub(super) struct Off;

impl Engine for Off {
    fn name(&self) -> &'static str {
        EngineChoice::Off.name()
    }

    fn for_cpu(&self, _: &mut Vcpu) -> Box<dyn EngineCpu> {
        Box::new(Self)
    }

    fn can_intercept(&self) -> bool {
        false
    }

    fn want(&self, _: bool) {}

    fn is_wanted(&self) -> bool {
        false
    }

    fn is_in_place(&self) -> bool {
        false
    }

    fn armed_at(&self) -> Option<Instant> {
        None
    }

    fn take_notes(&self, _: Instant) -> Vec<String> {
        Vec::new()
    }
}

impl EngineCpu for Off {
    fn recognise(&mut self, _: &VmExit, _: &mut Vcpu, _: &Memory) -> Option<Result<Caught, NoFrame>> {
        None
    }

    fn apply(&mut self, _: &mut Vcpu, _: &Memory, _: &Caught, _: &Outcome) -> Result<(), ApplyError> {
        Ok(())
    }
}
