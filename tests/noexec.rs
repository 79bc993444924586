//! Fetches from a page with NX set fault, and both guest and host see I and P in the error code.

use libtest_mimic::Trial;

use crate::harness::{kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("noexec", noexec)]
}

fn noexec() {
    let outcome = off_and_on("scenario=noexec");
    let faults = outcome.summary.faults;
    assert_eq!((faults.fetch, faults.present), (faults.total, faults.total), "{outcome}");
}
