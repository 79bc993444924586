//! Applies a verdict's outcome: the one place where this engine changes a vCPU.
//!
//! At the exit the vCPU is at the stub's OUT, in the state in which the guest's own handler would have begun.

use kvm_bindings::kvm_segment;
use vector14_hook::Va;

use super::frame::{Frame, InStub};
use super::idt::{Gate, Idtr};
use crate::intercept::engine::caught::{Caught, PAGE_FAULT};
use crate::intercept::engine::outcome::{ApplyError, Next, Outcome};
use crate::intercept::engine::registers::{RFLAGS_IF, set_general};
use crate::machine::memory::Memory;
use crate::machine::paging::read_virtual;
use crate::machine::segment;
use crate::machine::vcpu::Vcpu;

/// Applies an outcome to a vCPU that is in the stub.
pub(super) fn apply(
    cpu: &mut Vcpu,
    memory: &Memory,
    caught: &Caught,
    stub: &InStub,
    outcome: &Outcome,
) -> Result<(), ApplyError> {
    let mut frame = stub.frame;
    frame.set_interrupted(&outcome.registers);
    let mut other_address = None;
    let enter = match outcome.next {
        Next::Resume if frame.has_local_segment() => Entry::Context(Segments::load(cpu, memory, caught)?),
        Next::Resume => Entry::Stub,
        Next::Fault => Entry::Handler { rip: stub.handler, drop: 0, interrupts: None },
        Next::OtherFault { address, error_code } => {
            frame.error_code = u64::from(error_code.bits());
            other_address = Some(address);
            Entry::Handler { rip: stub.handler, drop: 0, interrupts: None }
        }
        Next::Raise(exception) => {
            let gate = find_gate(cpu, memory, caught, stub, exception.vector)?;
            let drop = match exception.error_code {
                Some(code) => {
                    frame.error_code = u64::from(code);
                    0
                }
                None => stub.width.word_size(),
            };
            Entry::Handler { rip: gate.offset(), drop, interrupts: Some(gate) }
        }
    };
    if frame != stub.frame {
        let rsp = frame.write(memory, &caught.context.paging).map_err(ApplyError::Frame)?;
        if rsp != cpu.regs().rsp {
            cpu.regs_mut().rsp = rsp;
        }
    }
    if outcome.registers != caught.context.registers {
        set_general(cpu.regs_mut(), &outcome.registers);
    }
    if let Some(address) = other_address {
        cpu.sregs_mut().cr2 = address.0;
    }
    enter.apply(cpu, &frame);
    Ok(())
}

/// Where the guest continues.
enum Entry {
    /// In the stub, whose tail returns to the interrupted context. KVM steps over the OUT by itself.
    Stub,
    /// In the interrupted context, without the stub: its segments belong to the guest's process, so the stub's IRETQ
    /// could fault, at a place where the kernel expects no fault.
    Context(Segments),
    /// In a handler, as if the CPU had entered it without pushing `drop` bytes of the frame. `interrupts` is the gate
    /// that decides RFLAGS.IF, if it is not gate 14.
    Handler { rip: Va, drop: u64, interrupts: Option<Gate> },
}

impl Entry {
    fn apply(self, cpu: &mut Vcpu, frame: &Frame) {
        match self {
            Self::Stub => {}
            Self::Context(Segments { code, stack }) => {
                let sregs = cpu.sregs_mut();
                (sregs.cs, sregs.ss) = (code, stack);
                let regs = cpu.regs_mut();
                (regs.rip, regs.rsp, regs.rflags) = (frame.rip, frame.rsp, frame.rflags);
            }
            Self::Handler { rip, drop, interrupts } => {
                let regs = cpu.regs_mut();
                regs.rip = rip.0;
                regs.rsp = regs.rsp.wrapping_add(drop);
                if let Some(gate) = interrupts {
                    let enabled = !gate.masks_interrupts() && frame.rflags & RFLAGS_IF != 0;
                    regs.rflags = (regs.rflags & !RFLAGS_IF) | if enabled { RFLAGS_IF } else { 0 };
                }
            }
        }
    }
}

/// The segments of an interrupted context.
struct Segments {
    code: kvm_segment,
    stack: kvm_segment,
}

impl Segments {
    /// Reads the segments of the context that `caught` interrupted from their descriptors, and makes sure that they
    /// are what IRETQ would load.
    fn load(cpu: &mut Vcpu, memory: &Memory, caught: &Caught) -> Result<Self, ApplyError> {
        const CODE: u8 = 1 << 3;
        const WRITABLE: u8 = 1 << 1;
        const CONFORMING: u8 = 1 << 2;
        let sregs = cpu.sregs();
        let level = (caught.cs & 3) as u8;
        let load = |selector, fits: fn(u8) -> bool| {
            let segment = segment::load(selector, sregs, memory, &caught.context.paging);
            let loads = |segment: &kvm_segment| {
                let is_own = segment.dpl == level || segment.type_ & (CODE | CONFORMING) == CODE | CONFORMING;
                segment.present == 1 && segment.s == 1 && is_own && fits(segment.type_)
            };
            segment.filter(loads).ok_or(ApplyError::Segment { selector })
        };
        let code = load(caught.cs, |kind| kind & CODE != 0)?;
        let stack = load(caught.ss, |kind| kind & (CODE | WRITABLE) == WRITABLE)?;
        Ok(Self { code, stack })
    }
}

/// The guest's gate for `vector`, if the CPU would enter its handler on the stack that it has now.
fn find_gate(cpu: &mut Vcpu, memory: &Memory, caught: &Caught, stub: &InStub, vector: u8) -> Result<Gate, ApplyError> {
    let sregs = cpu.sregs();
    let (idtr, selector) = (Idtr { base: Va(sregs.idt.base), limit: sregs.idt.limit }, sregs.cs.selector);
    let read = |vector| {
        let at = idtr.gate(vector, stub.width).ok_or("is beyond the limit of its IDT")?;
        let mut gate = Gate::default();
        let bytes = &mut gate.0[..stub.width.gate_size()];
        read_virtual(memory, &caught.context.paging, at, bytes).map_err(|_| "can't be read")?;
        Ok(gate)
    };
    let refuse = |why| ApplyError::Gate { vector, why };
    let gate = read(vector).map_err(refuse)?;
    if !gate.is_usable() {
        return Err(refuse("is missing"));
    }
    if gate.ist() != read(PAGE_FAULT).map_err(refuse)?.ist() {
        return Err(refuse("runs on another stack (IST) than gate 14"));
    }
    if (gate.selector() ^ selector) & !3 != 0 {
        return Err(refuse("runs in another code segment than gate 14"));
    }
    // Gate 14 points at the stub.
    Ok(if vector == PAGE_FAULT { gate.with_offset(stub.handler) } else { gate })
}
