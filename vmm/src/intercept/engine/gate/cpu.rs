//! One vCPU's side of the engine: it recognises the stub's exit and keeps the gate in place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vector14_hook::paging::Paging;
use vector14_hook::{Pa, Va};

use super::apply::apply;
use super::frame::{Frame, InStub};
use super::gaps::Gap;
use super::idt::{GateSlot, Idtr, Seen, Width};
use super::pages::{LostPage, obstacle};
use super::stub::{FAULT_PORT, OUT_LENGTH, Stub};
use super::table::{Arming, Table};
use crate::intercept::engine::caught::{Caught, NoFrame, PAGE_FAULT};
use crate::intercept::engine::interface::EngineCpu;
use crate::intercept::engine::outcome::{ApplyError, Outcome};
use crate::intercept::engine::registers;
use crate::intercept::guest::Context;
use crate::machine::memory::Memory;
use crate::machine::paging;
use crate::machine::segment::CodeSegment;
use crate::machine::stop::Stop;
use crate::machine::vcpu::{Direction, Io, Vcpu, VmExit};
use crate::machine::vcpus::Vcpus;

/// One vCPU's side of the engine.
pub(super) struct GateCpu {
    shared: Arc<Table>,
    /// The stubs as of `generation`; a copy, so that a fault takes no lock.
    stubs: Vec<Stub>,
    generation: u64,
    /// Gate 14 as it was last seen.
    seen: Option<Seen>,
    /// When gate 14 was last looked at.
    looked_at: Option<Instant>,
    /// Whether the last exit was a write to a gate.
    wrote_gate: bool,
    /// The stub, handler and frame of the fault that was recognised last.
    in_stub: Option<InStub>,
}

/// A look at gate 14.
#[derive(Clone, Copy)]
struct Look {
    /// Whether this is one of the looks that come at intervals.
    thorough: bool,
    now: Instant,
}

impl GateCpu {
    pub(super) fn new(shared: Arc<Table>) -> Self {
        Self { shared, stubs: Vec::new(), generation: 0, seen: None, looked_at: None, wrote_gate: false, in_stub: None }
    }

    /// Checks this vCPU's gate 14, and repairs it if needed. `thorough` also walks the page tables again: a guest can
    /// map another IDT at the old address.
    fn check(&mut self, cpu: &mut Vcpu, memory: &Memory, vcpus: &Vcpus, thorough: bool) -> Result<(), LostPage> {
        if cpu.in_guest_mode() {
            return Ok(());
        }
        if !std::mem::take(&mut self.wrote_gate) {
            self.shared.settle();
        }
        let now = Instant::now();
        let idt = cpu.sregs().idt;
        let idtr = Idtr { base: Va(idt.base), limit: idt.limit };
        if thorough || self.seen.is_none_or(|seen| seen.idtr != idtr || seen.slot.read(memory) != Some(seen.gate)) {
            self.seen = self.examine(cpu, idtr, memory, vcpus, Look { thorough, now })?;
        }
        self.looked_at = self.shared.is_wanted().then_some(now);
        Ok(())
    }

    fn examine(
        &self,
        cpu: &mut Vcpu,
        idtr: Idtr,
        memory: &Memory,
        vcpus: &Vcpus,
        Look { thorough, now }: Look,
    ) -> Result<Option<Seen>, LostPage> {
        let rip = cpu.regs().rip;
        if !self.shared.is_wanted() {
            let found = self.find(cpu, idtr, memory);
            let stray = found.is_some_and(|(_, seen)| self.shared.adopt(seen.slot, seen.gate));
            if stray || self.shared.in_place() {
                alone(vcpus, cpu, |_| self.shared.disarm(memory))?;
            }
            return Ok(self.find(cpu, idtr, memory).map(|(_, seen)| seen));
        }
        if !self.shared.may_arm(idtr.base) {
            return Ok(None);
        }
        let Some((paging, seen)) = self.find(cpu, idtr, memory) else { return Ok(None) };
        let Seen { slot, gate, .. } = seen;
        let armed = self.shared.adopt(slot, gate);
        if !armed {
            if gate.is_usable() && !self.was_changed_here(seen) {
                self.note_gap(cpu.index(), idtr, slot.width, now);
            }
            if self.shared.has_refused(gate) || !self.can_lead_to_stub(cpu, memory, &paging, seen) {
                return Ok(Some(seen));
            }
        }
        let page = slot.physical.page();
        let obstacle = obstacle(cpu, vcpus.cpus().len(), memory, &paging, seen, thorough);
        if let Some(obstacle) = obstacle.filter(|_| self.shared.keeps(page)) {
            alone(vcpus, cpu, |_| self.shared.give_up(page, obstacle))?;
        }
        if armed && self.shared.has_settled(slot) {
            return Ok(Some(seen));
        }
        alone(vcpus, cpu, |others| {
            let arming = Arming { memory, paging: &paging, idt: idtr.base, rip, others, thorough };
            self.shared.arm(&arming, slot, obstacle)
        })?;
        Ok(slot.read(memory).map(|gate| Seen { gate, ..seen }))
    }

    /// Whether the gate lost its stub to a write that was carried out at this very exit: its page is kept, and the
    /// gate was looked at before.
    fn was_changed_here(&self, found: Seen) -> bool {
        let Seen { slot, gate, .. } = found;
        let looked_at = self.seen.is_some_and(|seen| seen.slot == slot);
        looked_at && self.shared.keeps(slot.physical.page()) && !self.shared.has_refused(gate)
    }

    /// Records that gate 14 has no stub, and may have had none since the last look. Records nothing before the first
    /// gate is armed, because the arming time in the summary covers that.
    fn note_gap(&self, vcpu: u32, idtr: Idtr, width: Width, to: Instant) {
        let gate = idtr.gate(PAGE_FAULT, width);
        if let (Some(from), Some(_), Some(gate)) = (self.looked_at, self.shared.armed_at(), gate) {
            self.shared.add_gap(Gap { vcpu, from, to, gate });
        }
    }

    /// Carries out a guest write to a page that holds one of our gates; `faults` is the number of faults seen so far.
    /// Returns false if the page holds none.
    fn carry_out(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        vcpus: &Vcpus,
        at: Pa,
        data: &[u8],
        faults: u64,
    ) -> Result<bool, LostPage> {
        if !self.shared.keeps(at.page()) || cpu.in_guest_mode() {
            // KVM returns once per 8 bytes of a write, for all of them even if the page is given up in between.
            return Ok(memory.write(at, data).is_ok());
        }
        if self.shared.holds_gate(at, data.len()) {
            self.wrote_gate = true;
            let rip = cpu.regs().rip;
            let (paging, idt) = (paging::in_force(cpu.sregs()), Va(cpu.sregs().idt.base));
            alone(vcpus, cpu, |others| {
                self.shared.write_gate(
                    &Arming { memory, paging: &paging, idt, rip, others, thorough: false },
                    at,
                    data,
                    faults,
                );
                Ok(())
            })?;
        } else if self.shared.write_beside(memory, at, data) {
            alone(vcpus, cpu, |_| self.shared.give_up(at.page(), "the guest writes to it all the time"))?;
        }
        Ok(true)
    }

    /// Makes all pages writable again, because KVM could not continue, perhaps at a page that the guest can't write
    /// to. Returns false if there are no such pages.
    fn give_up_all(&mut self, cpu: &mut Vcpu, vcpus: &Vcpus, failure: &str) -> Result<bool, LostPage> {
        if !self.shared.keeps_any() {
            return Ok(false);
        }
        alone(vcpus, cpu, |_| self.shared.give_up_all(failure))?;
        // KVM has queued #UD where it could not emulate an instruction. Setting registers clears that (KVM_SET_REGS).
        cpu.regs_mut();
        Ok(true)
    }

    /// Finds gate 14, and how its address is translated.
    fn find(&self, cpu: &mut Vcpu, idtr: Idtr, memory: &Memory) -> Option<(Paging, Seen)> {
        let (paging, width) = translation(cpu)?;
        let at = idtr.gate(PAGE_FAULT, width)?;
        let leaf = paging.translate(at, |slot| memory.load(slot)).ok()?;
        if (at.0 & (leaf.page_size - 1)) + width.gate_size() as u64 > leaf.page_size {
            self.shared.note_once(at, format!("gate 14 at {at} spans two pages: faults through it are not seen"));
            return None;
        }
        let slot = GateSlot { physical: leaf.address, width };
        Some((paging, Seen { idtr, slot, gate: slot.read(memory)? }))
    }

    /// Whether the gate can point at a stub. The summary names gates that can't although faults go through them.
    fn can_lead_to_stub(&self, cpu: &mut Vcpu, memory: &Memory, paging: &Paging, seen: Seen) -> bool {
        let Seen { idtr, slot, gate } = seen;
        if slot.width == Width::Bits64 {
            return gate.is_usable();
        }
        let refuse = |why| {
            let at = idtr.base;
            self.shared.note_once(at, format!("gate 14 of the IDT at {at} {why}: faults through it are not seen"));
            false
        };
        if gate.is_task() {
            return refuse("is a task gate");
        }
        let mut flat = || CodeSegment::of_selector(gate.selector(), cpu.sregs()).is_flat(memory, paging);
        gate.is_usable() && (flat() || refuse("points into a code segment that does not begin at 0"))
    }

    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.generation != generation {
            self.stubs = self.shared.stubs();
            self.generation = generation;
        }
    }
}

impl EngineCpu for GateCpu {
    /// Returns the fault if `exit` is the OUT of a stub. An OUT to the same port from anywhere else is the guest's
    /// own.
    fn recognise(&mut self, exit: &VmExit, cpu: &mut Vcpu, memory: &Memory) -> Option<Result<Caught, NoFrame>> {
        const STUB_EXIT: VmExit =
            VmExit::Io(Io { port: FAULT_PORT as u16, direction: Direction::Out, size: 1, count: 1 });
        if *exit != STUB_EXIT || cpu.in_guest_mode() {
            return None;
        }
        self.refresh();
        // KVM leaves RIP at an OUT until the next entry, but advances it if KVM emulated the instruction.
        let rip = cpu.regs().rip;
        let handler = self
            .stubs
            .iter()
            .find(|stub| rip == stub.out().0 || rip == stub.out().offset(OUT_LENGTH).0)
            .map(|stub| stub.handler)?;
        let (paging, width) = translation(cpu)?;
        let rsp = Va(cpu.regs().rsp);
        let frame = match Frame::read(memory, &paging, width, rsp, cpu.sregs()) {
            Ok(frame) => frame,
            Err(source) => return Some(Err(NoFrame { rsp, source })),
        };
        self.in_stub = Some(InStub { handler, width, frame });
        Some(Ok(Caught {
            address: Va(cpu.sregs().cr2),
            error_code: frame.error_code(),
            cs: frame.cs(),
            ss: frame.ss(),
            context: Context {
                registers: frame.interrupted(cpu.regs()),
                system: registers::system(cpu.sregs()),
                paging,
                code: if frame.is_virtual_8086() {
                    CodeSegment::of_virtual_8086(frame.cs())
                } else {
                    CodeSegment::of_selector(frame.cs(), cpu.sregs())
                },
            },
            delivering: None,
        }))
    }

    fn apply(&mut self, cpu: &mut Vcpu, memory: &Memory, caught: &Caught, outcome: &Outcome) -> Result<(), ApplyError> {
        let stub = self.in_stub.as_ref().expect("`recognise` sets it whenever it returns a fault");
        apply(cpu, memory, caught, stub, outcome)
    }

    fn inspect(&mut self, cpu: &mut Vcpu, memory: &Memory, vcpus: &Vcpus, thorough: bool) -> Option<Stop> {
        self.check(cpu, memory, vcpus, thorough).err().map(crash)
    }

    fn write(
        &mut self,
        cpu: &mut Vcpu,
        memory: &Memory,
        vcpus: &Vcpus,
        address: Pa,
        faults: u64,
    ) -> Option<Result<(), Stop>> {
        let mut data = [0; 8];
        let length = cpu.mmio_data().len().min(data.len());
        data[..length].copy_from_slice(&cpu.mmio_data()[..length]);
        done(self.carry_out(cpu, memory, vcpus, address, &data[..length], faults))
    }

    fn give_way(&mut self, cpu: &mut Vcpu, vcpus: &Vcpus, failure: &str) -> Option<Result<(), Stop>> {
        done(self.give_up_all(cpu, vcpus, failure))
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

/// Runs `act` while every other vCPU stands still. Does not run it if the VM stops meanwhile.
fn alone(vcpus: &Vcpus, cpu: &mut Vcpu, act: impl FnOnce(&[u64]) -> Result<(), LostPage>) -> Result<(), LostPage> {
    let rip = cpu.regs().rip;
    vcpus.while_quiesced(cpu.index(), rip, act).unwrap_or(Ok(()))
}

/// How a vCPU translates addresses, and how wide its gates are; `None` without paging.
fn translation(cpu: &mut Vcpu) -> Option<(Paging, Width)> {
    let paging = paging::in_force(cpu.sregs());
    Some((paging, Width::of(paging.mode)?))
}
