//! What a hook decides about a fault.

use std::borrow::Cow;

/// What happens with a fault. The first verdict of a chain that is not [`Verdict::Pass`] decides; a chain in which
/// every hook passes reinjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion: the next hook of the chain is asked.
    Pass,
    /// The guest's own vector-14 handler runs, and sees exactly what the CPU would have shown it.
    Reinject,
    /// The guest retries the faulting instruction; its handler never runs.
    Resolve,
    /// The guest goes on behind the faulting instruction, which has no effect.
    Skip,
    /// Another exception is raised at the faulting instruction instead of #PF.
    Raise(Exception),
    /// The VM stops; the text says why.
    Stop(Cow<'static, str>),
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
}
