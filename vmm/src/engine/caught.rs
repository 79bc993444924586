//! A fault that has reached the host, in the form in which everything behind the engines sees it.

use kvm_bindings::kvm_sregs;
use vector14_hook::{ErrorCode, Fault, Registers, SystemRegisters, Va};

use super::gate::InStub;
use super::outcome::Event;
use crate::memory::Memory;
use crate::segment::CodeSegment;
use crate::vcpu::Vcpu;
use crate::walk::Paging;

/// A fault that has reached the host.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(super) address: Va,
    pub(super) error_code: ErrorCode,
    pub(super) cs: u16,
    pub(super) ss: u16,
    pub(super) paging: Paging,
    pub(super) system: SystemRegisters,
    /// The interrupted context, as the CPU pushes it or would have pushed it.
    pub(super) registers: Registers,
    pub(super) at: At,
}

/// Where the vCPU stands.
#[derive(Debug)]
pub(super) enum At {
    /// In the stub of gate 14: the fault has been delivered.
    Stub(InStub),
    /// At the instruction that faulted, or that an event was about to be delivered at: nothing has been delivered yet.
    Instruction { delivering: Option<Event> },
}

impl Caught {
    /// The fault, with its place in the order of all faults.
    pub(crate) fn decode(&self, sequence: u64, vcpu: u32) -> Fault {
        Fault {
            sequence,
            vcpu,
            address: self.address,
            error_code: self.error_code,
            cs: self.cs,
            rip: Va(self.registers.rip),
            rsp: Va(self.registers.rsp),
            ss: self.ss,
            rflags: self.registers.rflags,
            cr3: self.paging.cr3,
        }
    }

    /// The interrupted context.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// System registers, which an exception does not change.
    pub(crate) fn system(&self) -> SystemRegisters {
        self.system
    }

    /// The page tables in force.
    pub(crate) fn paging(&self) -> Paging {
        self.paging
    }

    /// The interrupted code segment; `None` where its descriptor can't be read.
    pub(super) fn code_segment(&self, cpu: &mut Vcpu, memory: &Memory) -> Option<CodeSegment> {
        let sregs: &kvm_sregs = cpu.sregs();
        match self.at {
            At::Stub(_) => CodeSegment::described(sregs, memory, &self.paging, self.cs),
            At::Instruction { .. } => Some(CodeSegment::loaded(sregs)),
        }
    }
}
