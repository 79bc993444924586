//! Another exception in the place of the fault.

use libtest_mimic::Trial;
use vector14::summary::Stop;
use vector14_guest_abi::window::RAISE;
use vector14_hook::{Exception, Verdict};

use crate::harness::{Act, Guest, Outcome, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("raise", raise),
        kvm_test("raise::an_exception_without_error_code", without_error_code),
        kvm_test("raise::what_cannot_be_raised_is_reinjected", impossible),
    ]
}

fn run(exception: Exception) -> Outcome {
    let act = Act { window: RAISE, verdict: Verdict::Raise(exception) };
    Guest::new("scenario=raise code=0x1234").hook("raise", act).run().balanced()
}

fn raise() {
    let outcome = run(Exception::general_protection(0x1234)).passed();
    assert_ne!(outcome.summary.verdicts.raise, 0, "{outcome}");
    assert_eq!(outcome.summary.verdicts.raise, outcome.summary.faults.total, "{outcome}");
    assert_eq!(outcome.guest_faults(), 0, "{outcome}");
}

fn without_error_code() {
    // The guest expects a #GP: that it says so, and of which vector it was, shows that the stack is that of a #DE.
    let outcome = run(Exception { vector: 0, error_code: None });
    assert!(matches!(outcome.summary.stop, Stop::Exit { status } if status != 1), "{outcome}");
    assert_eq!(outcome.summary.verdicts.raise, 1, "{outcome}");
    assert!(outcome.console.contains("fatal exception: vector=0 "), "{outcome}");
}

fn impossible() {
    let cases = [
        (Exception { vector: 2, error_code: None }, "vector 2 is no exception"),
        (Exception { vector: 200, error_code: None }, "vector 200 is no exception"),
        (Exception { vector: 13, error_code: None }, "the CPU pushes one"),
        (Exception { vector: 6, error_code: Some(1) }, "the CPU pushes none"),
    ];
    for (exception, why) in cases {
        let outcome = run(exception);
        assert_eq!(outcome.summary.verdicts.reinject, 1, "{outcome}");
        assert_eq!(outcome.summary.hooks[0].faulted, 1, "{outcome}");
        assert!(outcome.summary.notes[0].contains(why), "{outcome}");
    }
}
