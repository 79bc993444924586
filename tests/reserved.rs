//! Accesses through a page-table entry with a reserved bit set fault with RSVD in the error code.

use libtest_mimic::Trial;

use crate::harness::{emulated_by_qemu, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("reserved", reserved)]
}

fn reserved() {
    let outcome = off_and_on("scenario=reserved");
    let faults = outcome.summary.faults;
    assert_eq!(faults.reserved, faults.total, "{outcome}");
    assert_eq!(faults.present, if emulated_by_qemu() { 0 } else { faults.total }, "{outcome}");
}
