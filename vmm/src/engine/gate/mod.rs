//! Engine `gate`: IDT entry 14 is pointed at a stub whose first instruction is a port write, which leaves the guest.
//!
//! Works on any stock KVM. `idt` knows gate descriptors, `stub` the stub and its place, `table` what has been put into
//! the guest, `pages` what keeps the guest from writing over it, `gaps` when it was not there. This file recognises the
//! stub's exit and keeps the gate in place; `frame` reads what the CPU pushed, and `apply` carries a verdict's outcome out.

mod apply;
mod frame;
mod gaps;
mod idt;
mod pages;
mod stub;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vector14_hook::paging::{Mode, Paging};
use vector14_hook::{GuestError, Pa, Va};

pub(super) use self::apply::apply;
use self::frame::Frame;
use self::gaps::Gap;
use self::idt::{GATE_SIZE, Gate, Idtr, PAGE_FAULT};
pub(crate) use self::pages::LostPage;
use self::pages::written_by_cpu;
use self::stub::{FAULT_PORT, OUT_LENGTH, Stub};
use self::table::Written;
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
    /// When that was.
    looked_at: Option<Instant>,
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
        Self { shared, stubs: Vec::new(), generation: 0, seen: None, looked_at: None }
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
        if *exit != STUB_EXIT || cpu.in_guest_mode() {
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
    pub(crate) fn inspect(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        control: &Control,
        thorough: bool,
    ) -> Result<(), LostPage> {
        if cpu.in_guest_mode() {
            return Ok(());
        }
        let now = Instant::now();
        let idt = cpu.sregs().idt;
        let idtr = Idtr { base: Va(idt.base), limit: idt.limit };
        if thorough
            || self.seen.is_none_or(|seen| seen.idtr != idtr || read_gate(memory, seen.physical) != Some(seen.gate))
        {
            self.seen = self.examine(cpu, idtr, memory, control, now)?;
        }
        self.looked_at = Some(now);
        Ok(())
    }

    fn examine(
        &self,
        cpu: &mut Vcpu,
        idtr: Idtr,
        memory: &Memory,
        control: &Control,
        now: Instant,
    ) -> Result<Option<Seen>, LostPage> {
        let rip = Va(cpu.regs().rip);
        if !self.shared.wanted.load(Ordering::Relaxed) {
            if self.shared.must_disarm() {
                alone(control, cpu, |others| self.shared.disarm(memory, rip, others))?;
            }
            return Ok(None);
        }
        if !self.shared.may_arm(idtr.base) {
            return Ok(None);
        }
        let Some((paging, physical)) = self.find_gate(cpu, idtr, memory) else { return Ok(None) };
        let Some(gate) = read_gate(memory, physical) else { return Ok(None) };
        let seen = Seen { idtr, physical, gate };
        if !gate.is_usable() {
            return Ok(Some(seen));
        }
        if !self.shared.is_armed(gate) {
            self.note_gap(cpu.index(), idtr, now);
        }
        let page = physical.page();
        let obstacle = written_by_cpu(cpu, memory, &paging, page);
        if let Some(obstacle) = obstacle.filter(|_| self.shared.keeps(page)) {
            alone(control, cpu, |_| self.shared.give_up(page, obstacle))?;
        }
        if self.shared.adopt(physical, gate) {
            return Ok(Some(seen));
        }
        alone(control, cpu, |_| self.shared.arm(memory, &paging, physical, obstacle))?;
        Ok(read_gate(memory, physical).map(|gate| Seen { gate, ..seen }))
    }

    /// Where gate 14 of this vCPU is.
    fn find_gate(&self, cpu: &mut Vcpu, idtr: Idtr, memory: &Memory) -> Option<(Paging, Pa)> {
        let paging = long_mode(cpu)?;
        let at = idtr.gate(PAGE_FAULT)?;
        let physical = paging.translate(at, |slot| memory.load(slot)).ok()?;
        if (at.0 & (physical.page_size - 1)) + GATE_SIZE > physical.page_size {
            self.shared.note_once(
                at,
                format!("gate 14 at {at} lies across two pages: faults that go through it are not seen"),
            );
            return None;
        }
        Some((paging, physical.address))
    }

    /// Gate 14 has no stub, and may have had none since the last look. Before the first time that any gate is armed, the time of
    /// that says as much.
    fn note_gap(&self, vcpu: u32, idtr: Idtr, to: Instant) {
        if let (Some(from), Some(_), Some(gate)) = (self.looked_at, self.shared.armed_at(), idtr.gate(PAGE_FAULT)) {
            self.shared.add_gap(Gap { vcpu, from, to, gate });
        }
    }

    /// Carries out a write of the guest's to a page that holds a gate of ours. False where it is to none.
    pub(crate) fn write(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        control: &Control,
        at: Pa,
        data: &[u8],
    ) -> Result<bool, LostPage> {
        let paging = paging::in_force(cpu.sregs());
        match self.shared.write(memory, &paging, at, data) {
            Written::Elsewhere => return Ok(false),
            Written::Done => {}
            Written::TooMany => {
                alone(control, cpu, |_| self.shared.give_up(at.page(), "the guest writes to it all the time"))?;
            }
        }
        Ok(true)
    }

    /// KVM could not go on, maybe because of a page that the guest can't write to: all are made writable again. False where there
    /// are none.
    pub(crate) fn give_way(&mut self, cpu: &mut Vcpu, control: &Control, failure: &str) -> Result<bool, LostPage> {
        if !self.shared.keeps_any() {
            return Ok(false);
        }
        alone(control, cpu, |_| self.shared.give_up_all(failure))?;
        Ok(true)
    }

    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.generation != generation {
            self.stubs = self.shared.stubs();
            self.generation = generation;
        }
    }
}

/// Runs `act` while every other vCPU stands still; not where the VM stops meanwhile.
fn alone(control: &Control, cpu: &mut Vcpu, act: impl FnOnce(&[u64]) -> Result<(), LostPage>) -> Result<(), LostPage> {
    let rip = cpu.regs().rip;
    control.while_others_stand_still(cpu.index(), rip, act).unwrap_or(Ok(()))
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
