//! The KVM capability that the engine `exception-bitmap` uses: exits at page faults, as kvm/README.md promises them.
//!
//! These tests run if KVM has the capability (`vector14-lab --kvm exception-exit test exception_exit`); otherwise they
//! are ignored.

#![expect(unsafe_code, reason = "there is nothing between these tests and KVM's system calls")]

mod delivery;
mod emulator;
mod machine;
mod nested;

use std::thread;

use kvm_ioctls::{Kvm, SyncReg};
use libtest_mimic::Trial;
use vm_memory::{Bytes, GuestAddress};

use self::machine::{ABSENT, CODE, Exit, Machine, SPARE, STACK, enable};
use crate::harness::kvm_test;

/// KVM_CAP_X86_EXCEPTION_EXIT.
const CAPABILITY: u32 = 0x7614;
/// The vector of #PF, and the same as a mask.
const PF: u32 = 14;
const PF_MASK: u64 = 1 << PF;
const EINVAL: i32 = 22;

pub fn tests() -> Vec<Trial> {
    let mut tests =
        vec![kvm_test("exception_exit::capability", capability), kvm_test("exception_exit::unasked", unasked)];
    let with_exits: [(&str, fn()); 19] = [
        ("exits_before_delivery", exits_before_delivery),
        ("reinjected", reinjected),
        ("resolved", resolved),
        ("cr2_of_user_space", cr2_of_user_space),
        ("another_exception", another_exception),
        ("filter", filter),
        ("off_again", off_again),
        ("asked_while_running", asked_while_running),
        ("during_delivery::of_an_exception", delivery::of_an_exception),
        ("during_delivery::of_a_software_interrupt", delivery::of_a_software_interrupt),
        ("during_delivery::of_an_interrupt", delivery::of_an_interrupt),
        ("during_delivery::of_an_nmi", delivery::of_an_nmi),
        ("during_delivery::of_a_fault", delivery::of_a_fault),
        ("during_delivery::of_an_exception_that_gives_way", delivery::of_an_exception_that_gives_way),
        ("during_delivery::of_a_reinjected_fault", delivery::of_a_reinjected_fault),
        ("during_delivery::kept_from_user_space", delivery::kept_from_user_space),
        ("emulator::port", emulator::port),
        ("emulator::mmio", emulator::mmio),
        ("emulator::reinjected", emulator::reinjected),
    ];
    let of_amd: [(&str, fn()); 2] = [
        ("nested::fault_for_the_guest", nested::fault_for_the_guest),
        ("nested::fault_for_the_inner_guest", nested::fault_for_the_inner_guest),
    ];
    tests.extend(with_exits.into_iter().filter_map(|(name, body)| exit_test(&format!("exception_exit::{name}"), body)));
    if std::fs::exists("/sys/module/kvm_amd").is_ok_and(|amd| amd) {
        tests.extend(of_amd.into_iter().filter_map(|(name, body)| exit_test(&format!("exception_exit::{name}"), body)));
    }
    tests
}

/// A test that needs the exits. Without them it is ignored, unless `VECTOR14_KVM`, which the lab sets, names the KVM:
/// on `exception-exit` it must run, on `stock` it is left out.
fn exit_test(name: &str, body: fn()) -> Option<Trial> {
    let kvm = std::env::var("VECTOR14_KVM").unwrap_or_default();
    match kvm.as_str() {
        "exception-exit" => Some(kvm_test(name, body)),
        "stock" => None,
        _ if vectors() != 0 => Some(kvm_test(name, body)),
        _ => {
            eprintln!("SKIPPED {name}: this KVM has no exception exits (kvm/README.md)");
            Some(kvm_test(name, body).with_ignored_flag(true))
        }
    }
}

/// The mask of vectors for which KVM offers exits.
fn vectors() -> u64 {
    let answer = Kvm::new().map(|kvm| kvm.check_extension_raw(CAPABILITY.into())).unwrap_or(0);
    u64::try_from(answer).unwrap_or(0)
}

/// mov al, [rbx]; hlt
const READ: [u8; 3] = [0x8a, 0x03, 0xf4];
/// mov [rbx], al; hlt
const WRITE: [u8; 3] = [0x88, 0x03, 0xf4];

const fn fault(error_code: u32) -> Exit {
    Exit::Exception { vector: PF, error_code }
}

/// A machine that has enabled exits at all page faults.
fn intercepted(program: &[u8]) -> Machine {
    let machine = Machine::new(program);
    machine.enable([PF_MASK, 0, 0, 0]).unwrap();
    machine
}

/// KVM accepts what it offers, and nothing else. Without the capability it accepts nothing.
fn capability() {
    let machine = Machine::new(&READ);
    assert_eq!(machine.vm.check_extension_raw(CAPABILITY.into()), i32::try_from(vectors()).unwrap());
    if vectors() == 0 {
        assert_eq!(machine.enable([PF_MASK, 0, 0, 0]), Err(EINVAL));
        return;
    }
    assert_eq!(vectors(), PF_MASK);
    assert_eq!(machine.enable([PF_MASK, 0, 0, 0]), Ok(()));
    assert_eq!(machine.enable([0; 4]), Ok(()));
    for args in [[1 << 6, 0, 0, 0], [PF_MASK | 1, 0, 0, 0], [PF_MASK, 0, 1, 0], [PF_MASK, 0, 0, 1]] {
        assert_eq!(machine.enable(args), Err(EINVAL), "{args:x?}");
    }
}

/// At the exit, RIP is at the instruction and nothing has been pushed. Error code and address are those of the access.
fn exits_before_delivery() {
    for (program, error_code) in [(READ, 0), (WRITE, 2)] {
        let mut machine = intercepted(&program);
        assert_eq!(machine.run(), fault(error_code));
        let state = machine.state();
        assert_eq!((state.regs.rip, state.regs.rsp, state.sregs.cr2), (CODE, STACK, ABSENT));
        assert_eq!(state.events.exception.injected, 0);
        assert_eq!(machine.vcpu.get_sregs().unwrap().cr2, ABSENT);
    }
}

/// After a reinjection, the guest's handler sees what the CPU would have shown it.
fn reinjected() {
    let mut machine = intercepted(&WRITE);
    assert_eq!(machine.run(), fault(2));
    machine.queue(14, Some(2));
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
    let frame = machine.state().regs.rsp;
    assert_eq!(frame, STACK - 48);
    assert_eq!((machine.read(frame), machine.read(frame + 8)), (2, CODE));
}

/// The guest's CR2 before any fault, in the tests that look at it.
const OLD_CR2: u64 = 0x1234;

/// The instruction is retried, and the guest never learns of the fault: its CR2 is unchanged.
fn resolved() {
    let mut machine = intercepted(&READ);
    machine.set_sregs(|sregs| sregs.cr2 = OLD_CR2);
    assert_eq!(machine.run(), fault(0));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
    machine.write(SPARE, &[0x14]);
    machine.map(ABSENT, SPARE);
    assert_eq!(machine.run(), Exit::End);
    assert_eq!(machine.state().regs.rax & 0xff, 0x14);
    assert_eq!(machine.state().sregs.cr2, OLD_CR2);
}

/// What user space writes to CR2 stays there, except that writing back the fault's address changes nothing: the guest
/// keeps its old CR2.
fn cr2_of_user_space() {
    for (written, seen) in [(0x5678, 0x5678), (ABSENT, OLD_CR2)] {
        let mut machine = intercepted(&READ);
        machine.set_sregs(|sregs| sregs.cr2 = OLD_CR2);
        assert_eq!(machine.run(), fault(0));
        machine.state().sregs.cr2 = written;
        machine.changed(SyncReg::SystemRegister);
        machine.map(ABSENT, SPARE);
        assert_eq!(machine.run(), Exit::End);
        assert_eq!(machine.state().sregs.cr2, seen);
    }
}

/// User space can inject another exception in place of the fault; the guest keeps its old CR2.
fn another_exception() {
    let mut machine = intercepted(&READ);
    machine.set_sregs(|sregs| sregs.cr2 = OLD_CR2);
    assert_eq!(machine.run(), fault(0));
    machine.queue(13, Some(0));
    assert_eq!(machine.run(), Exit::Handled(13));
    assert_eq!(machine.state().sregs.cr2, OLD_CR2);
}

/// Only faults that meet mask and match exit; the others go to the guest's handler at once.
fn filter() {
    const WRITES: u64 = 2 | 2 << 32;
    const READS: u64 = 2;
    const NEVER: u64 = 1 << 32;
    for (program, filter, exits) in
        [(READ, READS, true), (WRITE, READS, false), (READ, WRITES, false), (WRITE, WRITES, true), (READ, NEVER, false)]
    {
        let mut machine = Machine::new(&program);
        machine.enable([PF_MASK, filter, 0, 0]).unwrap();
        let error_code = if program == WRITE { 2 } else { 0 };
        let expected = if exits { fault(error_code) } else { Exit::Handled(14) };
        assert_eq!(machine.run(), expected, "{filter:#x}");
        assert_eq!(machine.state().sregs.cr2, ABSENT, "{filter:#x}");
    }
}

/// Exits can be enabled and disabled at any time.
fn off_again() {
    let mut machine = intercepted(&READ);
    assert_eq!(machine.run(), fault(0));
    machine.enable([0; 4]).unwrap();
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
    machine.enable([PF_MASK, 0, 0, 0]).unwrap();
    machine.state().regs.rip = CODE;
    machine.changed(SyncReg::Register);
    assert_eq!(machine.run(), fault(0));
}

/// Enabling exits also reaches a vCPU that never leaves the guest by itself.
fn asked_while_running() {
    /// Sets [rcx] to say that it runs, spins until [rcx + 1] is not 0, and reads:
    /// mov byte [rcx], 1; cmp byte [rcx + 1], 0; je back; mov al, [rbx]; hlt
    const SPIN: [u8; 12] = [0xc6, 0x01, 0x01, 0x80, 0x79, 0x01, 0x00, 0x74, 0xfa, 0x8a, 0x03, 0xf4];
    const RUNS: GuestAddress = GuestAddress(SPARE);
    const GO: GuestAddress = GuestAddress(SPARE + 1);
    let mut machine = Machine::new(&SPIN);
    let mut regs = machine.vcpu.get_regs().unwrap();
    regs.rcx = SPARE;
    machine.vcpu.set_regs(&regs).unwrap();
    let (vm, memory) = (machine.vm.clone(), machine.memory.clone());
    let vcpu = thread::spawn(move || machine.run());
    while memory.read_obj::<u8>(RUNS).unwrap() == 0 {
        thread::yield_now();
    }
    enable(&vm, [PF_MASK, 0, 0, 0]).unwrap();
    memory.write_obj(1_u8, GO).unwrap();
    assert_eq!(vcpu.join().unwrap(), fault(0));
}

/// For a VM that has not enabled exits, nothing changes.
fn unasked() {
    let mut machine = Machine::new(&READ);
    assert_eq!(machine.run(), Exit::Handled(14));
    assert_eq!(machine.state().sregs.cr2, ABSENT);
}
