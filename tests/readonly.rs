//! Copy on write: the guest's own handler copies a read-only page at its first write.

use libtest_mimic::Trial;

use crate::harness::{kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("readonly", readonly)]
}

fn readonly() {
    let outcome = off_and_on("scenario=readonly pages=8");
    let faults = outcome.summary.faults;
    assert_eq!((faults.total, faults.write, faults.present), (8, 8, 8), "{outcome}");
}
