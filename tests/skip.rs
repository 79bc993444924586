//! After a skip, the guest goes on at the next instruction, whatever the encoding of the one that faulted.

use libtest_mimic::Trial;
use vector14_guest_abi::window::SKIP;
use vector14_hook::Verdict;

use crate::harness::{Act, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("skip", skip)]
}

fn skip() {
    let outcome = Guest::new("scenario=skip").hook("skip", Act { window: SKIP, verdict: Verdict::Skip }).run().passed();
    assert!(outcome.summary.verdicts.skip >= 10, "{outcome}");
    assert_eq!(outcome.summary.verdicts.skip, outcome.summary.faults.total, "{outcome}");
    assert_eq!(outcome.guest_faults(), 0, "{outcome}");
}
