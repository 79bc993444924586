//! A hook that resolves a fault without mapping the page: the loop is detected and reported, and the guest's own
//! handler gets the fault.

use libtest_mimic::Trial;
use vector14::LOOP_LIMIT;
use vector14_guest_abi::window::LOOP;
use vector14_hook::Verdict;

use crate::harness::{Act, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("loop", detected)]
}

fn detected() {
    Guest::new("scenario=loop").off().run().passed();
    let outcome =
        Guest::new("scenario=loop").hook("stuck", Act { window: LOOP, verdict: Verdict::Resolve }).run().passed();
    assert_eq!(outcome.summary.verdicts.resolve, u64::from(LOOP_LIMIT), "{outcome}");
    assert_eq!(outcome.summary.verdicts.reinject, 1, "{outcome}");
    assert_eq!(outcome.guest_faults(), 1, "{outcome}");
    let note = &outcome.summary.notes[0];
    assert!(note.contains("loop") && note.contains("stuck") && note.contains("rip 0x"), "{outcome}");
}
