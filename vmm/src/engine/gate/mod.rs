//! Engine `gate`: IDT entry 14 is pointed at a stub whose first instruction is a port write, which leaves the guest.
//!
//! Works on any stock KVM. `idt` knows gate descriptors, `stub` the stub and its place, `table` what has been put into
//! the guest; this file recognises the stub's exit and keeps the gate in place; `frame` reads what the CPU pushed, and
//! `apply` carries a verdict's outcome out.

mod apply;
mod frame;
mod idt;
mod stub;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vector14_hook::paging::{Mode, Paging};
use vector14_hook::{GuestError, Pa, Va};

pub(super) use self::apply::apply;
use self::frame::Frame;
use self::idt::{GATE_SIZE, Gate, Idtr, PAGE_FAULT};
use self::stub::{FAULT_PORT, OUT_LENGTH, Stub};
pub(crate) use self::table::{ArmWhen, Table};
use super::caught::{At, Caught};
use super::registers;
use crate::control::Control;
use crate::guest::Context;
use crate::memory::Memory;
use crate::paging;
use crate::segment::CodeSegment;
use crate::vcpu::{Direction, Io, Vcpu, VmExit};

/// One vCPU's side of the engine.
pub(crate) struct GateCpu {
    shared: Arc<Table>,
    /// The stubs as of `generation`: a copy, so that a fault takes no lock.
    stubs: Vec<Stub>,
    generation: u64,
    /// Gate 14 as it was found last.
    seen: Option<Seen>,
}

/// A gate 14 that has been looked at: while nothing of this changes there is nothing to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    idtr: Idtr,
    physical: Pa,
    gate: Gate,
}

/// What only a vCPU that stands in the stub has.
#[derive(Debug)]
pub(super) struct InStub {
    /// The guest's own handler.
    handler: Va,
    frame: Frame,
}

/// The stub ran, but not by way of a fault: the stack that it runs on can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the stub of gate 14 was entered with no exception frame on the stack: rsp {rsp}: {source}")]
pub(crate) struct NoFrame {
    rsp: Va,
    source: GuestError,
}

impl GateCpu {
    pub(crate) fn new(shared: Arc<Table>) -> Self {
        Self { shared, stubs: Vec::new(), generation: 0, seen: None }
    }

    /// Whether `exit` is the OUT of a stub; an OUT to the same port from anywhere else is the guest's own.
    pub(crate) fn recognise(
        &mut self,
        exit: &VmExit,
        cpu: &mut Vcpu,
        memory: &Memory,
    ) -> Option<Result<Caught, NoFrame>> {
        const STUB_EXIT: VmExit =
            VmExit::Io(Io { port: FAULT_PORT as u16, direction: Direction::Out, size: 1, count: 1 });
        if *exit != STUB_EXIT {
            return None;
        }
        self.refresh();
        // KVM leaves RIP at an OUT until it is entered again, but has moved it on where it has emulated the instruction.
        let rip = cpu.regs().rip;
        let handler = self
            .stubs
            .iter()
            .find(|stub| rip == stub.out().0 || rip == stub.out().offset(OUT_LENGTH).0)
            .map(|stub| stub.handler)?;
        let paging = long_mode(cpu)?;
        let rsp = Va(cpu.regs().rsp);
        let frame = Frame::read(memory, &paging, rsp).map_err(|source| NoFrame { rsp, source });
        Some(frame.map(|frame| Caught {
            address: Va(cpu.sregs().cr2),
            error_code: frame.error_code(),
            cs: frame.cs(),
            ss: frame.ss(),
            context: Context {
                registers: frame.interrupted(cpu.regs()),
                system: registers::system(cpu.sregs()),
                paging,
                code: CodeSegment::of_selector(frame.cs(), cpu.sregs()),
            },
            at: At::Stub(InStub { handler, frame }),
        }))
    }

    /// Looks whether gate 14 of this vCPU is as it should be, and puts it right where it is not. `thorough` also walks
    /// the page tables anew: a guest can map another IDT where the old one was.
    pub(crate) fn inspect(&mut self, cpu: &mut Vcpu, memory: &Memory, control: &Control, thorough: bool) {
        let idt = cpu.sregs().idt;
        let idtr = Idtr { base: Va(idt.base), limit: idt.limit };
        if !thorough
            && self.seen.is_some_and(|seen| seen.idtr == idtr && read_gate(memory, seen.physical) == Some(seen.gate))
        {
            return;
        }
        self.seen = self.examine(cpu, idtr, memory, control);
    }

    fn examine(&self, cpu: &mut Vcpu, idtr: Idtr, memory: &Memory, control: &Control) -> Option<Seen> {
        let rip = Va(cpu.regs().rip);
        if !self.shared.is_wanted() {
            let found = self.find(cpu, idtr, memory);
            let stray = found.is_some_and(|(_, seen)| self.shared.adopt(seen.physical, seen.gate));
            if stray || self.shared.in_place() {
                control.while_others_stand_still(cpu.index(), rip.0, |_| self.shared.disarm(memory));
            }
            return self.find(cpu, idtr, memory).map(|(_, seen)| seen);
        }
        if !self.shared.may_arm(idtr.base) {
            return None;
        }
        let (paging, seen) = self.find(cpu, idtr, memory)?;
        let Seen { physical, gate, .. } = seen;
        if !gate.is_usable() || self.shared.adopt(physical, gate) || self.shared.has_refused(gate) {
            return Some(seen);
        }
        control.while_others_stand_still(cpu.index(), rip.0, |_| self.shared.arm(memory, &paging, physical))?;
        Some(Seen { gate: read_gate(memory, physical)?, ..seen })
    }

    /// Gate 14 as it is, and how its address was translated.
    fn find(&self, cpu: &mut Vcpu, idtr: Idtr, memory: &Memory) -> Option<(Paging, Seen)> {
        let paging = long_mode(cpu)?;
        let at = idtr.gate(PAGE_FAULT)?;
        let leaf = paging.translate(at, |slot| memory.load(slot)).ok()?;
        if (at.0 & (leaf.page_size - 1)) + GATE_SIZE > leaf.page_size {
            self.shared.note_once(
                at,
                format!("gate 14 at {at} lies across two pages: faults that go through it are not seen"),
            );
            return None;
        }
        let physical = leaf.address;
        Some((paging, Seen { idtr, physical, gate: read_gate(memory, physical)? }))
    }

    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.generation != generation {
            self.stubs = self.shared.stubs();
            self.generation = generation;
        }
    }
}

/// How a vCPU in long mode translates; in other modes an IDT has no gates of 16 bytes.
fn long_mode(cpu: &mut Vcpu) -> Option<Paging> {
    let paging = paging::in_force(cpu.sregs());
    matches!(paging.mode, Mode::Long { .. }).then_some(paging)
}

fn read_gate(memory: &Memory, at: Pa) -> Option<Gate> {
    let mut gate = Gate::default();
    memory.read(at, &mut gate.0).ok()?;
    Some(gate)
}
