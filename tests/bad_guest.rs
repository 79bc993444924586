//! Hostile guests: the host neither panics nor hangs, and the summary says what happened.

use std::time::Duration;

use libtest_mimic::Trial;
use vector14::config::EngineChoice;
use vector14::summary::Stop;

use crate::harness::{Guest, Outcome, engine, kvm_test, of_gate};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        kvm_test("bad-guest::idt-outside", idt_outside),
        kvm_test("bad-guest::tables-loop", tables_loop),
        kvm_test("bad-guest::stack-unmapped", stack_unmapped),
        kvm_test("bad-guest::stack-mmio", stack_mmio),
        kvm_test("bad-guest::gate-absent", gate_absent),
    ];
    // Tests of the stub.
    tests.extend(of_gate(vec![
        kvm_test("bad-guest::stub-without-a-stack", stub_without_a_stack),
        kvm_test("bad-guest::no-room", no_room),
        kvm_test("bad-guest::no-room-but-a-named-place", named_place),
    ]));
    tests
}

fn run(cmdline: &str) -> Outcome {
    Guest::new(cmdline).run().balanced()
}

/// Runs a guest whose fault can't be delivered, because the CPU has to push or read outside of memory. The CPU shuts
/// down, or KVM gives up on the guest; kvm-amd retries forever, until the deadline ends the guest.
fn undeliverable(cmdline: &str) {
    let outcome = Guest::new(cmdline).timeout(Duration::from_secs(3)).run().balanced();
    assert!(matches!(outcome.summary.stop, Stop::Crash { .. } | Stop::Deadline), "{outcome}");
    // The stub runs only if the fault is delivered.
    let seen = if engine() == EngineChoice::Gate { 0..=0 } else { 1..=u64::MAX };
    assert!(seen.contains(&outcome.summary.faults.total), "{outcome}");
}

#[track_caller]
fn crash(outcome: &Outcome) -> &str {
    let Stop::Crash { detail } = &outcome.summary.stop else { panic!("no crash\n{outcome}") };
    detail
}

/// The guest's IDT is outside of memory, so nobody can deliver the fault.
fn idt_outside() {
    undeliverable("scenario=idt-outside");
}

/// A walk through a page table that points to itself ends at the last level.
fn tables_loop() {
    run("scenario=tables-loop").passed().guest_saw_what_was_reinjected();
}

fn stack_unmapped() {
    for ring in [0, 3] {
        let outcome = run(&format!("scenario=stack-unmapped ring={ring}"));
        assert!(crash(&outcome).contains("vcpu 0"), "{outcome}");
    }
}

fn stack_mmio() {
    undeliverable("scenario=stack-mmio how=fault");
}

/// The guest jumps to the address in its gate 14: into the stub, with a stack that can't be read.
fn stub_without_a_stack() {
    let outcome = run("scenario=stack-mmio how=jump");
    assert!(crash(&outcome).contains("no exception frame"), "{outcome}");
    assert_eq!(outcome.summary.faults.total, 0, "{outcome}");
}

fn gate_absent() {
    let outcome = run("scenario=gate-absent");
    assert!(matches!(outcome.summary.stop, Stop::Exit { status } if status != 1), "{outcome}");
    assert!(outcome.console.contains("fatal exception"), "{outcome}");
}

/// No stub fits beside the guest's handler. The guest runs without interception, and the summary says what was
/// searched.
fn no_room() {
    let outcome = run("scenario=no-room").passed();
    let note = outcome.summary.notes.join("\n");
    for word in ["can't be intercepted", "16 bytes of 0xcc", "0x1300000000", "intercept.stub", "large page"] {
        assert!(note.contains(word), "no `{word}`\n{outcome}");
    }
}

/// The config names a place for the stub: 16 bytes after the code of the guest's handler.
fn named_place() {
    let start = vector14_guest_abi::window::NO_ROOM.start;
    let outcome = Guest::new("scenario=no-room")
        .stub(start + 0x800..start + 0x810)
        .run()
        .passed()
        .guest_saw_what_was_reinjected();
    assert_eq!(outcome.summary.notes, [""; 0], "{outcome}");
}
