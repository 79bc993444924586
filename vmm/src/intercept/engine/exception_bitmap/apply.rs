//! Applies a verdict's outcome: the one place where this engine changes a vCPU.
//!
//! At the exit the vCPU is before the instruction, in the state in which it began the instruction.

use kvm_bindings::{
    KVM_VCPUEVENT_VALID_SHADOW, KVM_VCPUEVENT_VALID_TRIPLE_FAULT, kvm_regs, kvm_vcpu_events,
    kvm_vcpu_events__bindgen_ty_1,
};
use vector14_hook::{ErrorCode, Exception, Registers};

use super::delivery::{self, Delivery};
use crate::intercept::engine::caught::{Caught, PAGE_FAULT};
use crate::intercept::engine::outcome::{ApplyError, Next, Outcome};
use crate::intercept::engine::registers::set_general;
use crate::machine::vcpu::Vcpu;

/// Flags that IRET can set; hooks may change only these.
const RFLAGS_WRITABLE: u64 = 0x003d_7fd5;

/// Applies an outcome to a vCPU that is at the faulting instruction.
pub(super) fn apply(cpu: &mut Vcpu, caught: &Caught, outcome: &Outcome) -> Result<(), ApplyError> {
    let delivering = caught.delivering;
    let before = &caught.context.registers;
    let moved = outcome.registers.rip != before.rip;
    let queue = match outcome.next {
        // KVM restarts the instruction, or delivers the event, by itself.
        Next::Resume if !moved => None,
        Next::Resume => Some(Queue::AsItIs),
        Next::Fault => Some(delivery::after(delivering, page_fault(caught.error_code)).into()),
        Next::OtherFault { error_code, .. } => Some(delivery::after(delivering, page_fault(error_code)).into()),
        Next::Raise(exception) => Some(delivery::after(delivering, injectable(exception)?).into()),
    };
    if outcome.registers != *before || (queue.is_some() && cpu.regs().rflags != outcome.registers.rflags) {
        set(cpu.regs_mut(), &outcome.registers);
    }
    if let Next::OtherFault { address, .. } = outcome.next {
        cpu.sregs_mut().cr2 = address.0;
    }
    if let Some(queue) = queue {
        queue.set(cpu.events_mut());
    }
    Ok(())
}

fn page_fault(error_code: ErrorCode) -> Exception {
    Exception { vector: PAGE_FAULT, error_code: Some(error_code.bits()) }
}

/// Returns `exception` if KVM injects it as a fault. KVM takes vectors 3 and 4 for INT3 and INTO, and continues the
/// guest after an instruction; CPUs refuse to inject vectors that they don't know.
fn injectable(exception: Exception) -> Result<Exception, ApplyError> {
    match exception.vector {
        0 | 1 | 5..=8 | 10..=14 | 16 | 17 | 19 => Ok(exception),
        vector => Err(ApplyError::NotInjectable(vector)),
    }
}

fn set(regs: &mut kvm_regs, registers: &Registers) {
    set_general(regs, registers);
    (regs.rip, regs.rsp) = (registers.rip, registers.rsp);
    regs.rflags = (regs.rflags & !RFLAGS_WRITABLE) | (registers.rflags & RFLAGS_WRITABLE);
}

/// What KVM must deliver at the next entry, if that is not what it would deliver by itself.
enum Queue {
    /// The event that was being delivered, but no longer as a software interrupt or exception: the guest has left the
    /// instruction that raised it.
    AsItIs,
    Exception(Exception),
    TripleFault,
}

impl From<Delivery> for Queue {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Exception(exception) => Self::Exception(exception),
            Delivery::TripleFault => Self::TripleFault,
        }
    }
}

impl Queue {
    /// Marks only what must change as valid, so that an NMI that another vCPU has sent meanwhile stays pending. An
    /// interrupt or NMI that was being delivered stays queued beside the exception. The shadow of an STI or MOV SS
    /// ends: it covers only the instruction that follows them.
    fn set(self, events: &mut kvm_vcpu_events) {
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        events.interrupt.shadow = 0;
        match self {
            Self::AsItIs => {}
            Self::Exception(exception) => {
                events.exception = kvm_vcpu_events__bindgen_ty_1 {
                    injected: 1,
                    nr: exception.vector,
                    has_error_code: u8::from(exception.error_code.is_some()),
                    pending: 0,
                    error_code: exception.error_code.unwrap_or(0),
                };
            }
            Self::TripleFault => {
                events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
                events.triple_fault.pending = 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_queued_beside_the_interrupt_that_was_being_delivered() {
        let mut events = kvm_vcpu_events::default();
        (events.interrupt.injected, events.interrupt.nr, events.interrupt.shadow) = (1, 0xec, 1);
        (events.flags, events.nmi.pending) = (0xd, 1);
        Queue::Exception(Exception { vector: 14, error_code: Some(6) }).set(&mut events);
        let exception = &events.exception;
        assert_eq!((exception.injected, exception.nr, exception.has_error_code, exception.error_code), (1, 14, 1, 6));
        assert_eq!((events.interrupt.injected, events.interrupt.nr, events.interrupt.shadow), (1, 0xec, 0));
        assert_eq!(events.flags, KVM_VCPUEVENT_VALID_SHADOW);
    }

    #[test]
    fn a_triple_fault_is_an_event_of_its_own() {
        let mut events = kvm_vcpu_events::default();
        Queue::from(Delivery::TripleFault).set(&mut events);
        assert_eq!((events.triple_fault.pending, events.exception.injected), (1, 0));
        assert_ne!(events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT, 0);
    }

    #[test]
    fn a_hook_sets_no_flag_that_iret_does_not() {
        let mut regs = kvm_regs { rflags: 1 << 1 | 1 << 17, ..kvm_regs::default() };
        set(&mut regs, &Registers { rflags: u64::MAX, rip: 5, rsp: 6, rax: 7, ..Registers::default() });
        assert_eq!((regs.rflags, regs.rip, regs.rsp, regs.rax), (RFLAGS_WRITABLE | 1 << 1 | 1 << 17, 5, 6, 7));
        set(&mut regs, &Registers::default());
        assert_eq!(regs.rflags, 1 << 1 | 1 << 17);
    }

    #[test]
    fn what_kvm_takes_for_an_instruction_is_refused() {
        for vector in [3, 4, 9, 15, 20, 29] {
            assert!(injectable(Exception { vector, error_code: None }).is_err());
        }
        assert!(injectable(Exception::INVALID_OPCODE).is_ok());
    }
}
