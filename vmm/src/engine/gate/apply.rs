//! A verdict, made into machine state: the one place where this engine changes a vCPU.
//!
//! At the exit the vCPU stands at the stub's OUT, in the state in which the guest's own handler would have begun.

use vector14_hook::{Code, Exception, GuestError, Registers, Va, Verdict, VerdictError};

use super::Caught;
use super::frame::set_general;
use super::idt::{Gate, Idtr, PAGE_FAULT};
use super::length::Lengths;
use crate::guest::{read_virtual, read_words};
use crate::memory::Memory;
use crate::vcpu::Vcpu;

const RFLAGS_IF: u64 = 1 << 9;
/// Set in the pushed RFLAGS so that the restarted instruction meets no instruction breakpoint (SDM vol. 3B, 18.3.1.1).
const RFLAGS_RF: u64 = 1 << 16;

/// Why a verdict can't be carried out. The vCPU is then as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("said Skip, but the instruction at {rip}, or its code segment, can't be read")]
    UnreadableCode { rip: Va },
    #[error("said Skip, but the bytes at {rip} are no instruction")]
    NoInstruction { rip: Va },
    #[error(transparent)]
    Impossible(#[from] VerdictError),
    #[error("said Raise, but the guest's gate {vector} {why}: use Reinject or Skip")]
    Gate { vector: u8, why: &'static str },
    #[error("the interrupted context on the guest's stack can't be changed: {0}")]
    Frame(GuestError),
}

/// Carries `verdict` out. `registers` are those of the interrupted context, as the hooks left them.
pub(super) fn apply(
    lengths: &mut Lengths,
    cpu: &mut Vcpu,
    memory: &Memory,
    caught: &Caught,
    verdict: &Verdict,
    registers: &Registers,
) -> Result<(), ApplyError> {
    verdict.check(&caught.context.paging)?;
    let mut frame = caught.frame;
    frame.set_interrupted(registers);
    let (mut enter, mut other_address) = (Entry::Stub, None);
    match verdict {
        Verdict::Pass | Verdict::Reinject => enter = Entry::Handler { rip: caught.handler, drop: 0, interrupts: None },
        Verdict::ReinjectAs { address, error_code } => {
            frame.error_code = u64::from(error_code.bits());
            enter = Entry::Handler { rip: caught.handler, drop: 0, interrupts: None };
            other_address = Some(*address);
        }
        Verdict::Resolve | Verdict::Stop(_) => {}
        Verdict::Skip => {
            frame.rip = next_instruction(lengths, memory, caught, registers)?;
            frame.rflags &= !RFLAGS_RF;
        }
        Verdict::Raise(exception) => {
            let gate = find_gate(cpu, memory, caught, *exception)?;
            let drop = match exception.error_code {
                Some(code) => {
                    frame.error_code = u64::from(code);
                    0
                }
                None => 8,
            };
            enter = Entry::Handler { rip: gate.offset(), drop, interrupts: Some(gate) };
        }
    }
    if frame != caught.frame {
        frame.write(memory).map_err(ApplyError::Frame)?;
    }
    if *registers != caught.context.registers {
        set_general(cpu.regs_mut(), registers);
    }
    if let Some(address) = other_address {
        cpu.sregs_mut().cr2 = address.0;
    }
    enter.apply(cpu, frame.rflags);
    Ok(())
}

/// Where the guest goes on.
enum Entry {
    /// In the stub, whose tail returns to the interrupted context: KVM steps over the OUT by itself.
    Stub,
    /// In a handler, as if the CPU had come there: `drop` bytes of the frame were not pushed, and RFLAGS.IF is as the
    /// gate makes it, where that is another gate than 14.
    Handler { rip: Va, drop: u64, interrupts: Option<Gate> },
}

impl Entry {
    fn apply(self, cpu: &mut Vcpu, interrupted_rflags: u64) {
        match self {
            Self::Stub => {}
            Self::Handler { rip, drop, interrupts } => {
                let regs = cpu.regs_mut();
                regs.rip = rip.0;
                regs.rsp = regs.rsp.wrapping_add(drop);
                if let Some(gate) = interrupts {
                    let enabled = !gate.masks_interrupts() && interrupted_rflags & RFLAGS_IF != 0;
                    regs.rflags = (regs.rflags & !RFLAGS_IF) | if enabled { RFLAGS_IF } else { 0 };
                }
            }
        }
    }
}

/// The address behind the instruction that faulted.
fn next_instruction(
    lengths: &mut Lengths,
    memory: &Memory,
    caught: &Caught,
    registers: &Registers,
) -> Result<u64, ApplyError> {
    let rip = Va(registers.rip);
    let unreadable = ApplyError::UnreadableCode { rip };
    let mut code = Code { rip, ..Code::default() };
    // The page behind the instruction's need not be mapped.
    code.count = read_words(memory, &caught.context.paging, rip, &mut code.bytes);
    let bits = caught.context.code.bits(memory, &caught.context.paging);
    code.bits = bits.filter(|_| code.count > 0).ok_or(unreadable)?;
    let length = lengths.of(&code).ok_or(ApplyError::NoInstruction { rip })?;
    let next = rip.0.wrapping_add(length as u64);
    Ok(if code.bits == 64 { next } else { next & 0xffff_ffff })
}

/// The guest's gate for `exception`, where the CPU would come to its handler with the very stack that it has now.
fn find_gate(cpu: &mut Vcpu, memory: &Memory, caught: &Caught, exception: Exception) -> Result<Gate, ApplyError> {
    let vector = exception.vector;
    let sregs = cpu.sregs();
    let (idtr, selector) = (Idtr { base: Va(sregs.idt.base), limit: sregs.idt.limit }, sregs.cs.selector);
    let read = |vector| {
        let at = idtr.gate(vector).ok_or("lies behind the limit of its IDT")?;
        let mut gate = Gate::default();
        read_virtual(memory, &caught.context.paging, at, &mut gate.0).map_err(|_| "can't be read")?;
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
    // Gate 14 leads to the stub.
    Ok(if vector == PAGE_FAULT { gate.with_offset(caught.handler) } else { gate })
}
