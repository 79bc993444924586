//! Guests that load other IDTs, rewrite gate 14, copy a table or restore a gate: after each step, interception is armed
//! and knows the right original handler.

use libtest_mimic::Trial;

use crate::harness::{Guest, kvm_test, of_gate, off_and_on};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![kvm_test("idt", idt), kvm_test("idt::rewritten", rewritten)];
    tests.extend(of_gate(vec![
        kvm_test("idt::rewritten-beside-data", rewritten_beside_data),
        kvm_test("idt::rewritten-beside-the-gdt", rewritten_beside_the_gdt),
        kvm_test("idt::loaded-without-an-exit", loaded_without_an_exit),
    ]));
    tests
}

fn idt() {
    off_and_on("scenario=idt");
}

/// The guest's own handlers count every fault, so this fails if one is missed.
fn rewritten() {
    let outcome = off_and_on("scenario=idt-rewrite how=gate rounds=1000");
    assert_eq!(outcome.summary.faults.total, 2000, "{outcome}");
    assert!(outcome.summary.notes.is_empty(), "{outcome}");
}

/// Writes to other data in the gate's page cost exits, and no fault is missed.
fn rewritten_beside_data() {
    let outcome = off_and_on("scenario=idt-rewrite how=shared rounds=500");
    assert_eq!(outcome.summary.faults.total, 1000, "{outcome}");
    assert!(outcome.summary.exits.mmio >= 3 * 1000, "{outcome}");
    assert!(outcome.summary.notes.is_empty(), "{outcome}");
}

/// The CPU itself writes to a GDT, so a page with one can't be made read-only. The summary says where faults may have
/// been missed.
fn rewritten_beside_the_gdt() {
    let outcome = Guest::new("scenario=idt-rewrite how=descriptors rounds=500").run().passed();
    assert_eq!(outcome.guest_faults(), 1000, "{outcome}");
    let told = |text| outcome.summary.notes.iter().any(|note| note.contains(text));
    assert!(told("its global descriptor table is in it"), "{outcome}");
    assert!(outcome.summary.faults.total == 1000 || told("may have been missed on vCPU 0 from"), "{outcome}");
}

/// No KVM exits at LIDT. The summary says where faults may have been missed.
fn loaded_without_an_exit() {
    let outcome = Guest::new("scenario=idt-rewrite how=table rounds=1000").run().passed();
    assert_eq!(outcome.guest_faults(), 1000, "{outcome}");
    let told = outcome.summary.notes.iter().any(|note| note.contains("may have been missed on vCPU 0 from"));
    assert!(outcome.summary.faults.total == 1000 || told, "{outcome}");
}
