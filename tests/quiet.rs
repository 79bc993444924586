//! The beat, a periodic kick of the vCPUs, arms interception in a guest that makes no exit before its first fault.

use libtest_mimic::Trial;

use crate::harness::{Guest, kvm_test, of_gate};

pub fn tests() -> Vec<Trial> {
    // The other engine needs no beat: it intercepts from the first instruction on.
    of_gate(vec![kvm_test("quiet", quiet)])
}

fn quiet() {
    Guest::new("scenario=quiet").off().run().passed();
    let outcome = Guest::new("scenario=quiet").run().passed().guest_saw_what_was_reinjected();
    assert_ne!(outcome.summary.exits.kick, 0, "{outcome}");
}
