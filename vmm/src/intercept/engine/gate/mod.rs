//! Engine `gate`: IDT entry 14 points at a stub whose first instruction is a port write, which exits to the host.
//!
//! Works on any stock KVM, in long mode and in protected mode.
//!
//! # Layout
//! - `cpu`: recognises the stub's exit and keeps the gate in place
//! - `idt`: gate descriptors
//! - `stub`: the stub; `room`, `padding`, `own_page`: where it can go
//! - `table`: what was written into the guest; `pages`: keeps the guest from overwriting it; `gaps`: when it was not
//!   in place
//! - `frame`, `stack`: what the CPU pushed
//! - `apply`: applies a verdict's outcome

mod apply;
mod cpu;
mod frame;
mod gaps;
mod idt;
mod own_page;
mod padding;
mod pages;
mod room;
mod stack;
mod stub;
mod table;

use std::sync::Arc;
use std::time::Instant;

use self::cpu::GateCpu;
pub(crate) use self::room::Room;
pub(crate) use self::table::ArmWhen;
use self::table::Table;
use super::interface::{Engine, EngineCpu};
use crate::intercept::config::EngineChoice;
use crate::machine::vcpu::Vcpu;
use crate::sys::mapped::MappedVm;

/// The engine of one VM.
pub(super) struct GateEngine(Arc<Table>);

impl GateEngine {
    pub(super) fn new(room: Room, arm_when: ArmWhen, machine: MappedVm) -> Self {
        Self(Arc::new(Table::new(room, arm_when, Box::new(machine))))
    }
}

impl Engine for GateEngine {
    fn name(&self) -> &'static str {
        EngineChoice::Gate.name()
    }

    fn for_cpu(&self, _: &mut Vcpu) -> Box<dyn EngineCpu> {
        Box::new(GateCpu::new(Arc::clone(&self.0)))
    }

    fn want(&self, wanted: bool) {
        self.0.want(wanted);
    }

    fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }

    fn is_in_place(&self) -> bool {
        self.0.in_place()
    }

    fn armed_at(&self) -> Option<Instant> {
        self.0.armed_at()
    }

    fn take_notes(&self, start: Instant) -> Vec<String> {
        self.0.take_notes(start)
    }

    fn needs_beat(&self) -> bool {
        true
    }

    fn beat(&self) {
        self.0.beat();
    }
}
