//! Faults of all kinds from ring 0, where CR0.WP decides whether a write to a read-only page faults.

use libtest_mimic::Trial;

use crate::harness::{kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("ring0", ring0)]
}

fn ring0() {
    let outcome = off_and_on("scenario=ring0");
    let faults = outcome.summary.faults;
    assert_eq!(faults.user, 0, "{outcome}");
    for kind in [faults.write, faults.fetch, faults.present, faults.reserved] {
        assert_ne!(kind, 0, "{outcome}");
    }
}
