//! A fault that has reached the host, in the form that both engines produce.

use vector14_hook::{ErrorCode, Fault, Va};

use super::gate::frame::InStub;
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
    pub(super) at: At,
}

/// Where the vCPU is.
#[derive(Debug)]
pub(super) enum At {
    /// In the stub of gate 14: the fault has been delivered.
    Stub(InStub),
    /// At the instruction that faulted, or at which an event was about to be delivered; the fault has not been
    /// delivered.
    Instruction { delivering: Option<Event> },
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
