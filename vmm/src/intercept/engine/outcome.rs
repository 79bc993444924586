//! The outcome of a verdict, for either engine: the context that continues, and where it continues. A verdict that
//! can't be applied is refused here, before anything has changed.

use vector14_hook::{ErrorCode, Exception, GuestError, Registers, Va, Verdict, VerdictError};

use super::caught::{Caught, Event};
use super::length::Lengths;
use super::registers::RFLAGS_RF;
use crate::intercept::chain::Cause;
use crate::machine::memory::Memory;
use crate::machine::segment::next_rip;

/// Why a verdict can't be applied. The vCPU is left unchanged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("said Skip, but the instruction at {rip}, or its code segment, can't be read")]
    UnreadableCode { rip: Va },
    #[error("said Skip, but the bytes at {rip} are not an instruction")]
    NoInstruction { rip: Va },
    #[error("said Skip, but no instruction faulted: {0} was being delivered at {1}")]
    InDelivery(Event, Va),
    #[error("would have the guest go on at {rip}, which is not canonical")]
    NotCanonical { rip: Va },
    #[error(transparent)]
    Impossible(#[from] VerdictError),
    #[error("said Raise, but the guest's gate {vector} {why}: use Reinject or Skip")]
    Gate { vector: u8, why: &'static str },
    #[error("said Raise, but KVM can't inject vector {0} as a fault, only 0, 1, 5 to 8, 10 to 14, 16, 17 and 19")]
    NotInjectable(u8),
    #[error("the interrupted context's segment {selector:#x} is no longer in the guest's descriptor table")]
    Segment { selector: u16 },
    #[error("the interrupted context on the guest's stack can't be changed: {0}")]
    Frame(GuestError),
}

impl ApplyError {
    /// Who is to blame.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Gate { .. } | Self::Segment { .. } | Self::Frame(_) => Cause::Guest,
            Self::UnreadableCode { .. }
            | Self::NoInstruction { .. }
            | Self::InDelivery(..)
            | Self::NotCanonical { .. }
            | Self::Impossible(_)
            | Self::NotInjectable(_) => Cause::Hook,
        }
    }
}

/// The outcome of a verdict.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The interrupted context's registers, as it continues.
    pub(super) registers: Registers,
    pub(super) next: Next,
}

/// Where the context continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At its own instruction.
    Resume,
    /// In the guest's own vector-14 handler, with the original fault.
    Fault,
    /// In the guest's own vector-14 handler, with another fault.
    OtherFault { address: Va, error_code: ErrorCode },
    /// In the handler of another exception.
    Raise(Exception),
}

impl Outcome {
    /// Computes the outcome of `verdict` on `caught`; `registers` are the interrupted context's, as the hooks left
    /// them.
    pub(crate) fn of(
        verdict: &Verdict,
        registers: &Registers,
        caught: &Caught,
        lengths: &mut Lengths,
        memory: &Memory,
    ) -> Result<Self, ApplyError> {
        verdict.check(&caught.context.paging)?;
        let mut registers = *registers;
        let next = match verdict {
            Verdict::Pass | Verdict::Reinject => Next::Fault,
            Verdict::ReinjectAs { address, error_code } => {
                Next::OtherFault { address: *address, error_code: *error_code }
            }
            Verdict::Resolve | Verdict::Stop(_) => Next::Resume,
            Verdict::Skip => {
                if let Some(event) = caught.delivering {
                    return Err(ApplyError::InDelivery(event, Va(registers.rip)));
                }
                registers.rip = next_instruction(registers.rip, caught, lengths, memory)?;
                registers.rflags &= !RFLAGS_RF;
                Next::Resume
            }
            Verdict::Raise(exception) => Next::Raise(*exception),
        };
        let rip = Va(registers.rip);
        if rip.0 != caught.context.registers.rip && !caught.context.paging.is_canonical(rip) {
            return Err(ApplyError::NotCanonical { rip });
        }
        Ok(Self { registers, next })
    }
}

/// Address of the instruction after the one at `rip`.
fn next_instruction(rip: u64, caught: &Caught, lengths: &mut Lengths, memory: &Memory) -> Result<u64, ApplyError> {
    let context = &caught.context;
    let code = context.code.fetch(rip, memory, &context.paging);
    let code = code.ok_or(ApplyError::UnreadableCode { rip: Va(rip) })?;
    let length = lengths.of(&code).ok_or(ApplyError::NoInstruction { rip: Va(rip) })?;
    Ok(next_rip(&code, length))
}
