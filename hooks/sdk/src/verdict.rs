//! What a hook decides about a fault.

use std::borrow::Cow;

use crate::paging::Paging;
use crate::{ErrorCode, Va};

/// What happens with a fault. The first verdict of a chain that is not [`Verdict::Pass`] decides; a chain in which
/// every hook passes reinjects.
///
/// | verdict | what the guest sees | state in which it goes on | where it can fail |
/// | --- | --- | --- | --- |
/// | `Pass` | the next hook decides; if all pass, as `Reinject` | | never |
/// | `Reinject` | its own vector-14 handler, with the CPU's error code and CR2 | at the handler's first instruction, as the CPU would have come there | never |
/// | `ReinjectAs` | the same, with another address in CR2 and another error code | as `Reinject` | an address that is not canonical, an error code with bits that no CPU sets |
/// | `Resolve` | nothing: the instruction is tried again | at the faulting instruction | never; a guest that makes no progress that way is given the fault |
/// | `Skip` | an instruction without effect | behind the instruction, RFLAGS.RF clear | the instruction can't be read or decoded; there is none, since the CPU was delivering another event |
/// | `Raise` | another exception, at the faulting instruction | at that vector's handler | a vector that is no exception, an error code where the CPU pushes none or the other way round; with the engine `gate`, a gate that is missing, has a stack or a code segment of its own; with `exception-bitmap`, vectors 3 and 4, and those that CPUs don't know |
/// | `Stop` | nothing any more | | never |
///
/// Registers that a hook has changed are in force in all cases but the failures. An instruction pointer that is not canonical
/// fails with any verdict. A verdict that fails is reported, and the fault is reinjected with the registers as they were, unless
/// the hook stops the VM instead ([`Hook::on_refused`](crate::Hook::on_refused)). It is the hook's failure, and the hook is left
/// out, unless the guest's gates, segments or stack are in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion: the next hook of the chain is asked.
    Pass,
    /// The guest's own vector-14 handler runs, and sees exactly what the CPU would have shown it.
    Reinject,
    /// The guest's own vector-14 handler runs, and is told of another fault.
    ReinjectAs {
        /// What it finds in CR2.
        address: Va,
        /// What is pushed as the error code.
        error_code: ErrorCode,
    },
    /// The guest retries the faulting instruction; its handler never runs.
    Resolve,
    /// The guest goes on behind the faulting instruction, which has no effect. Results, if it is to have any, are written
    /// with [`Guest::registers_mut`](crate::Guest::registers_mut).
    Skip,
    /// Another exception is raised at the faulting instruction instead of #PF.
    Raise(Exception),
    /// The VM stops; the text says why.
    Stop(Cow<'static, str>),
}

/// Why a verdict can't be carried out, whatever the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// An exception that no instruction can cause.
    #[error(
        "said Raise, but vector {0} is no exception that a fault can be turned into: 0 to 31, but for 2 (NMI) and 18 (#MC)"
    )]
    Vector(u8),
    /// An error code where the CPU pushes none.
    #[error("said Raise of vector {0} with an error code, but the CPU pushes none for it")]
    NeedlessErrorCode(u8),
    /// No error code where the CPU pushes one.
    #[error("said Raise of vector {0} without an error code, but the CPU pushes one for it")]
    MissingErrorCode(u8),
    /// An address that no access can fault at as a #PF: it would be a #GP.
    #[error("said ReinjectAs, but no access to {0} can fault that way: it is not canonical")]
    Address(Va),
    /// Bits that are no error code of a page fault.
    #[error("said ReinjectAs, but no CPU pushes the error code {:#x} for a page fault", .0.bits())]
    PageFaultCode(ErrorCode),
}

impl Verdict {
    /// Whether there can be such a fault or exception on a CPU that translates addresses as `paging` says. What else can go wrong
    /// depends on the guest: the instruction to be skipped, the gate of the exception.
    ///
    /// # Errors
    /// [`VerdictError`].
    pub fn check(&self, paging: &Paging) -> Result<(), VerdictError> {
        match self {
            Self::Pass | Self::Reinject | Self::Resolve | Self::Skip | Self::Stop(_) => Ok(()),
            Self::ReinjectAs { address, .. } if !paging.is_canonical(*address) => Err(VerdictError::Address(*address)),
            Self::ReinjectAs { error_code, .. } if !ErrorCode::DEFINED.contains(*error_code) => {
                Err(VerdictError::PageFaultCode(*error_code))
            }
            Self::ReinjectAs { .. } => Ok(()),
            Self::Raise(exception) => exception.check(),
        }
    }
}

/// A contributory or benign exception to be raised in the place of a #PF (SDM vol. 3A, table 6-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// IDT vector, 0 to 31.
    pub vector: u8,
    /// The error code that is pushed, for the vectors that have one: 8, 10 to 14, 17, 21, 29, 30.
    pub error_code: Option<u32>,
}

impl Exception {
    /// #UD, invalid opcode.
    pub const INVALID_OPCODE: Self = Self { vector: 6, error_code: None };

    /// #GP, general protection.
    #[must_use]
    pub const fn general_protection(error_code: u32) -> Self {
        Self { vector: 13, error_code: Some(error_code) }
    }

    /// Whether the CPU pushes an error code for `vector` (SDM vol. 3A, table 6-1; APM vol. 2, table 8-1).
    #[must_use]
    pub const fn pushes_error_code(vector: u8) -> bool {
        matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
    }
    fn check(self) -> Result<(), VerdictError> {
        let Self { vector, error_code } = self;
        match (Self::pushes_error_code(vector), error_code) {
            _ if vector > 31 || matches!(vector, 2 | 18) => Err(VerdictError::Vector(vector)),
            (true, None) => Err(VerdictError::MissingErrorCode(vector)),
            (false, Some(_)) => Err(VerdictError::NeedlessErrorCode(vector)),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }
}
