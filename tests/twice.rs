//! One instruction faults on two pages, one after the other.

use libtest_mimic::Trial;

use crate::harness::{Guest, Recorder, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("twice", twice)]
}

fn twice() {
    off_and_on("scenario=twice");
    let recorder = Recorder::default();
    let outcome = Guest::new("scenario=twice").hook("recorder", recorder.clone()).run().passed();
    let [first, second] = recorder.faults()[..] else { panic!("not two faults\n{outcome}") };
    assert_eq!(first.rip, second.rip, "{outcome}");
    assert_ne!(first.address.page(), second.address.page(), "{outcome}");
}
