//! Guests that load other IDTs, rewrite gate 14, copy a table, restore a gate: each step ends armed, with the right
//! original handler.

use libtest_mimic::Trial;

use crate::harness::{kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("idt", idt)]
}

fn idt() {
    off_and_on("scenario=idt");
}
