//! The guest's own handler maps pages at their first touch, and serves every fault that is reinjected.

use libtest_mimic::Trial;

use crate::harness::{Guest, Recorder, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("demand", demand), kvm_test("demand::faults_reach_hooks_in_order", in_order)]
}

fn demand() {
    let outcome = off_and_on("scenario=demand pages=1000");
    assert_eq!(outcome.summary.faults.total, 1000, "{outcome}");
    assert_eq!(outcome.summary.faults.user, 1000, "{outcome}");
    assert_eq!(outcome.summary.faults.present, 0, "{outcome}");
}

fn in_order() {
    let recorder = Recorder::default();
    let outcome = Guest::new("scenario=demand pages=50").hook("recorder", recorder.clone()).run().passed();
    let faults = recorder.faults();
    assert_eq!(faults.len(), 50, "{outcome}");
    for (sequence, pair) in (1..).zip(faults.windows(2)) {
        assert_eq!(pair[1].sequence, sequence);
        assert_eq!(pair[1].address.page(), pair[0].address.page().offset(4096), "{outcome}");
    }
    assert_eq!(outcome.summary.hooks[0].calls, 50, "{outcome}");
}
