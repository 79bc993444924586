//! Accesses through a page-table entry with a reserved bit set.

use libtest_mimic::Trial;

use crate::harness::{kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("reserved", reserved)]
}

fn reserved() {
    let outcome = off_and_on("scenario=reserved");
    let faults = outcome.summary.faults;
    assert_eq!((faults.reserved, faults.present), (faults.total, faults.total), "{outcome}");
}
