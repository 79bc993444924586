//! Faults in the delivery of another event: neither of the two is lost.

use kvm_bindings::kvm_vcpu_events;

use super::machine::{ABSENT, CODE, Exit, IDT, Machine, SPARE, STACK};
use super::{PF_MASK, READ, fault, intercepted};

const UD2: [u8; 2] = [0x0f, 0x0b];
const UD: u8 = 6;
const DF: u8 = 8;
/// int 0x40
const INT: [u8; 2] = [0xcd, 0x40];
const VECTOR: u8 = 0x40;

/// A machine whose IDT is not mapped yet.
fn without_idt(program: &[u8]) -> Machine {
    let machine = intercepted(program);
    machine.set_sregs(|sregs| sregs.idt.base = ABSENT);
    machine
}

/// Checks that the first exit is the fault on the gate of this vector. Once the fault is resolved, the handler of the
/// interrupted event must run, with CR2 as it was. Returns what KVM showed of that event at the exit.
#[track_caller]
fn delivered_once_resolved(mut machine: Machine, vector: u8) -> kvm_vcpu_events {
    assert_eq!(machine.run(), fault(0));
    let events = machine.state().events;
    assert_eq!(machine.state().sregs.cr2, ABSENT + 16 * u64::from(vector));
    assert_eq!(machine.state().regs.rip, CODE);
    machine.map(ABSENT, IDT);
    assert_eq!(machine.run(), Exit::Handled(vector.into()));
    assert_eq!(machine.state().sregs.cr2, 0);
    events
}

pub fn of_an_exception() {
    let events = delivered_once_resolved(without_idt(&UD2), UD);
    assert_eq!((events.exception.injected, events.exception.nr), (1, UD));
}

/// KVM never shows a software interrupt: if KVM does not deliver it, the instruction at RIP makes a new one.
pub fn of_a_software_interrupt() {
    let events = delivered_once_resolved(without_idt(&INT), VECTOR);
    assert_eq!((events.interrupt.injected, events.exception.injected), (0, 0));
}

pub fn of_an_interrupt() {
    let machine = without_idt(&READ);
    // VMX refuses to inject an interrupt where the guest has interrupts off (SDM vol. 3C, 27.3.1.4).
    let mut regs = machine.vcpu.get_regs().unwrap();
    regs.rflags |= 1 << 9;
    machine.vcpu.set_regs(&regs).unwrap();
    let mut events = machine.vcpu.get_vcpu_events().unwrap();
    (events.interrupt.injected, events.interrupt.nr) = (1, VECTOR);
    machine.vcpu.set_vcpu_events(&events).unwrap();
    let events = delivered_once_resolved(machine, VECTOR);
    assert_eq!((events.interrupt.injected, events.interrupt.nr, events.interrupt.soft), (1, VECTOR, 0));
}

pub fn of_an_nmi() {
    let machine = without_idt(&READ);
    let mut events = machine.vcpu.get_vcpu_events().unwrap();
    events.nmi.injected = 1;
    machine.vcpu.set_vcpu_events(&events).unwrap();
    let events = delivered_once_resolved(machine, 2);
    assert_eq!(events.nmi.injected, 1);
}

/// A read fault that KVM keeps for the guest is delivered on an absent stack, and that write fault exits. Once the
/// write fault is resolved, the read fault is delivered, with its own address.
pub fn of_a_fault() {
    let mut machine = Machine::new(&READ);
    machine.enable([PF_MASK, 2 | 2 << 32, 0, 0]).unwrap();
    machine.unmap(STACK - 4096);
    assert_eq!(machine.run(), fault(2));
    let state = machine.state();
    assert_eq!((state.events.exception.injected, state.events.exception.nr), (1, 14));
    assert_eq!(state.sregs.cr2, STACK - 8);
    machine.map(STACK - 4096, SPARE);
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
}

/// A machine whose stack is absent for #PF; #DF has a stack of its own (IST 1).
fn without_stack(args: [u64; 4]) -> Machine {
    let machine = Machine::new(&READ);
    machine.enable(args).unwrap();
    machine.unmap(STACK - 4096);
    machine.use_ist(DF);
    machine
}

/// Two faults that KVM keeps for the guest make a #DF, as they do without KVM.
pub fn kept_from_user_space() {
    const FETCHES: u64 = 0x10 | 0x10 << 32;
    let mut machine = without_stack([PF_MASK, FETCHES, 0, 0]);
    assert_eq!(machine.run(), Exit::Handled(DF.into()));
}

/// A fault that user space has reinjected faults again in its delivery, and user space makes a #DF of the two.
pub fn of_a_reinjected_fault() {
    let mut machine = without_stack([PF_MASK, 0, 0, 0]);
    assert_eq!(machine.run(), fault(0));
    machine.queue(14, Some(0));
    assert_eq!(machine.run(), fault(2));
    let exception = machine.state().events.exception;
    assert_eq!((exception.injected, exception.nr, exception.error_code), (1, 14, 0));
    machine.queue(DF, Some(0));
    assert_eq!(machine.run(), Exit::Handled(DF.into()));
    assert_eq!(machine.state().sregs.cr2, STACK - 8);
}

/// User space may inject the fault in place of the interrupted exception: the instruction then raises that exception
/// again.
pub fn of_an_exception_that_gives_way() {
    // The gates up to #UD's are on an absent page, and those after it on the next page.
    const NEXT: u64 = ABSENT + 0x1000;
    let mut machine = intercepted(&UD2);
    let behind = 16 * (u64::from(UD) + 1);
    machine.set_sregs(|sregs| sregs.idt.base = NEXT - behind);
    (0..128).step_by(8).for_each(|at| machine.write(SPARE + at, &machine.read(IDT + behind + at).to_le_bytes()));
    machine.map(NEXT, SPARE);
    assert_eq!(machine.run(), fault(0));
    machine.queue(14, Some(0));
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, NEXT - 16);
    let frame = machine.state().regs.rsp;
    assert_eq!(machine.read(frame + 8), CODE);
}
