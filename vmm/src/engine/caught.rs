//! A fault that has reached the host, in the form in which everything behind the engines sees it.

use vector14_hook::{ErrorCode, Fault, Va};

use super::gate::InStub;
use super::outcome::Event;
use crate::guest::Context;

/// A fault that has reached the host.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(super) address: Va,
    pub(super) error_code: ErrorCode,
    pub(super) cs: u16,
    pub(super) ss: u16,
    /// What it interrupted; its registers as the CPU pushes them, or would have pushed them.
    pub(super) context: Context,
    pub(super) at: At,
}

/// Where the vCPU stands.
#[derive(Debug)]
pub(super) enum At {
    /// In the stub of gate 14: the fault has been delivered.
    Stub(InStub),
    /// At the instruction that faulted, or that an event was about to be delivered at: the fault has not been delivered.
    Instruction { delivering: Option<Event> },
}

impl Caught {
    /// The fault, with its place in the order of all faults.
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

    /// What it interrupted.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}
