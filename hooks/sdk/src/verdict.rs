//! What a hook decides about a fault.

use std::borrow::Cow;

use crate::paging::Paging;
use crate::{ErrorCode, Va};

/// What happens with a fault. The first verdict in the chain that is not [`Verdict::Pass`] decides. If every hook
/// passes, the fault is reinjected.
///
/// | verdict | what the guest sees | where it continues | when it fails |
/// | --- | --- | --- | --- |
/// | `Pass` | whatever the next hook decides; if all pass, as `Reinject` | | never |
/// | `Reinject` | its own vector-14 handler, with the CPU's error code and CR2 | at the handler's first instruction, as if the CPU had delivered the fault | never |
/// | `ReinjectAs` | its own vector-14 handler, with another address in CR2 and another error code | as `Reinject` | the address is not canonical, or the error code has bits that no CPU sets |
/// | `Resolve` | nothing: the instruction is retried | at the faulting instruction | never; if the guest makes no progress, the fault is reinjected |
/// | `Skip` | an instruction without effect | after the instruction, with RFLAGS.RF clear | the instruction can't be read or decoded, or there is none, because the CPU was delivering another event |
/// | `Raise` | another exception, at the faulting instruction | at that vector's handler | the vector is not an exception; it has an error code but the CPU pushes none, or the reverse; with the engine `gate`, the gate is missing or has its own stack or code segment; with `exception-bitmap`, vectors 3 and 4, and those that CPUs don't define |
/// | `Stop` | nothing: the VM stops | | never |
///
/// Register changes that the hook made take effect unless the verdict fails. An instruction pointer that is not
/// canonical fails with any verdict.
///
/// A verdict that fails is reported, and the fault is reinjected with the registers as they were, unless the hook stops
/// the VM instead ([`Hook::on_refused`](crate::Hook::on_refused)). The failure counts against the hook, which is then
/// disabled, unless the guest's gates, segments or stack are the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion: the next hook of the chain is asked.
    Pass,
    /// The guest's own vector-14 handler runs, with the error code and CR2 that the CPU supplied.
    Reinject,
    /// The guest's own vector-14 handler runs, with another address and error code.
    ReinjectAs {
        /// The address in CR2.
        address: Va,
        /// The error code that is pushed.
        error_code: ErrorCode,
    },
    /// The guest retries the faulting instruction; its handler never runs.
    Resolve,
    /// The guest continues after the faulting instruction, which has no effect. Write any results with
    /// [`Guest::registers_mut`](crate::Guest::registers_mut).
    Skip,
    /// Another exception is raised at the faulting instruction instead of #PF.
    Raise(Exception),
    /// The VM stops; the text says why.
    Stop(Cow<'static, str>),
}

/// Why a verdict can't be carried out on any guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// `Raise` of a vector that is not an exception caused by instructions.
    #[error(
        "said Raise, but vector {0} is not an exception that can replace a fault; use 0 to 31, except 2 (NMI) and 18 (#MC)"
    )]
    Vector(u8),
    /// `Raise` with an error code, for a vector for which the CPU pushes none.
    #[error("said Raise of vector {0} with an error code, but the CPU pushes none for it")]
    NeedlessErrorCode(u8),
    /// `Raise` without an error code, for a vector for which the CPU pushes one.
    #[error("said Raise of vector {0} without an error code, but the CPU pushes one for it")]
    MissingErrorCode(u8),
    /// `ReinjectAs` with an address that is not canonical: an access to it raises #GP, never #PF.
    #[error("said ReinjectAs, but no access to {0} can fault that way: it is not canonical")]
    Address(Va),
    /// `ReinjectAs` with error-code bits that no CPU sets for a page fault.
    #[error("said ReinjectAs, but no CPU pushes the error code {:#x} for a page fault", .0.bits())]
    PageFaultCode(ErrorCode),
}

macro_rules! verdict_kinds {
    ($($(#[$doc:meta])* $kind:ident: $name:literal,)*) => {
        /// The kind of a verdict: what becomes of the fault. Every fault is counted under one kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum VerdictKind { $($(#[$doc])* $kind,)* }

        impl VerdictKind {
            /// All kinds. `kind as usize` is the index of a kind.
            pub const ALL: [Self; [$(Self::$kind),*].len()] = [$(Self::$kind),*];

            /// Its name in summaries and in scripts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

verdict_kinds! {
    /// The fault is reinjected into the guest's own handler, unchanged or as another fault.
    Reinject: "reinject",
    /// The fault is resolved: the instruction is retried.
    Resolve: "resolve",
    /// The instruction is stepped over.
    Skip: "skip",
    /// Another exception is raised.
    Raise: "raise",
    /// The VM stops.
    Stop: "stop",
}

impl Verdict {
    /// The kind under which a fault with this verdict is counted. `Pass` counts as the reinjection that it leads to.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Pass | Self::Reinject | Self::ReinjectAs { .. } => VerdictKind::Reinject,
            Self::Resolve => VerdictKind::Resolve,
            Self::Skip => VerdictKind::Skip,
            Self::Raise(_) => VerdictKind::Raise,
            Self::Stop(_) => VerdictKind::Stop,
        }
    }

    /// The verdict's own name: its kind's, except for `pass` and `reinject-as`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::ReinjectAs { .. } => "reinject-as",
            Self::Reinject | Self::Resolve | Self::Skip | Self::Raise(_) | Self::Stop(_) => self.kind().name(),
        }
    }

    /// Checks that a CPU in the paging mode `paging` can deliver this verdict's fault or exception. Other failures
    /// depend on the guest: on the instruction to skip, or the exception's gate.
    ///
    /// # Errors
    /// [`VerdictError`].
    #[inline]
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

/// An exception to raise instead of a #PF (SDM vol. 3A, table 6-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// IDT vector, 0 to 31.
    pub vector: u8,
    /// The error code that is pushed; required for vectors 8, 10 to 14, 17, 21, 29 and 30, and `None` for all others.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_at_its_index_under_a_name_of_its_own() {
        for (index, kind) in VerdictKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert!(VerdictKind::ALL[..index].iter().all(|other| other.name() != kind.name()), "{}", kind.name());
        }
    }

    #[test]
    fn pass_and_reinject_as_count_as_reinjections_and_keep_their_names() {
        let other = Verdict::ReinjectAs { address: Va(7), error_code: ErrorCode::WRITE };
        for (verdict, name) in [(Verdict::Pass, "pass"), (Verdict::Reinject, "reinject"), (other, "reinject-as")] {
            assert_eq!((verdict.kind(), verdict.name()), (VerdictKind::Reinject, name));
        }
        assert_eq!(Verdict::Skip.name(), VerdictKind::Skip.name());
    }
}
