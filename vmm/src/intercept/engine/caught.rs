//! A fault that has reached the host, in the form that both engines produce.

use vector14_hook::{ErrorCode, Fault, GuestError, Va};

use crate::intercept::guest::Context;

/// Vector of #PF (SDM vol. 3A, table 6-1).
pub(super) const PAGE_FAULT: u8 = 14;

/// A fault that has reached the host, whichever engine caught it.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(super) address: Va,
    pub(super) error_code: ErrorCode,
    pub(super) cs: u16,
    pub(super) ss: u16,
    /// The interrupted context; its registers are as the CPU pushed them, or would have pushed them.
    pub(super) context: Context,
    /// The event whose delivery faulted. `None` if an instruction did, and if the fault has been delivered already.
    pub(super) delivering: Option<Event>,
}

/// An exit that looks like a fault's, without an exception frame on the stack.
#[derive(Debug, thiserror::Error)]
#[error("the stub of gate 14 was entered with no exception frame on the stack: rsp {rsp}: {source}")]
pub(crate) struct NoFrame {
    pub(super) rsp: Va,
    pub(super) source: GuestError,
}

/// An event that the CPU was delivering when it faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Exception { vector: u8 },
    Interrupt { vector: u8 },
    Nmi,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exception { vector } => write!(f, "exception {vector}"),
            Self::Interrupt { vector } => write!(f, "interrupt {vector}"),
            Self::Nmi => f.write_str("an NMI"),
        }
    }
}

impl Caught {
    /// Decodes the fault; `sequence` is its place in the order of all faults.
    pub(crate) fn decode(&self, sequence: u64, vcpu: u32) -> Fault {
        let Context { registers, paging, .. } = &self.context;
        Fault {
            sequence,
            vcpu,
            address: self.address,
            error_code: self.error_code,
            cs: self.cs,
            rip: Va(registers.rip),
            rsp: Va(registers.rsp),
            ss: self.ss,
            rflags: registers.rflags,
            cr3: paging.cr3,
        }
    }

    /// The interrupted context.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}
