//! The guest's page-fault handler takes a fault itself.

use libtest_mimic::Trial;

use crate::harness::{Guest, Recorder, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("nested", nested)]
}

fn nested() {
    off_and_on("scenario=nested pages=4");
    let recorder = Recorder::default();
    let outcome = Guest::new("scenario=nested pages=4").hook("recorder", recorder.clone()).run().passed();
    let from_user: Vec<bool> = recorder.faults().iter().map(vector14_hook::Fault::from_user).collect();
    assert_eq!(
        from_user,
        [true, false].repeat(4),
        "each user fault is followed by one of the handler's own\n{outcome}"
    );
}
