//! A guest that never exits by itself before its first fault is armed by the beat.

use libtest_mimic::Trial;

use crate::harness::{Guest, kvm_test, of_gate};

pub fn tests() -> Vec<Trial> {
    // The other engine needs no beat: it is there from the first instruction on.
    of_gate(vec![kvm_test("quiet", quiet)])
}

fn quiet() {
    Guest::new("scenario=quiet").off().run().passed();
    let outcome = Guest::new("scenario=quiet").run().passed().guest_saw_what_was_reinjected();
    assert_ne!(outcome.summary.exits.kick, 0, "{outcome}");
}
