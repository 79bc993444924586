//! The least memory that a guest can have, and more than lies below the hole under 4 GiB.

use libtest_mimic::Trial;

use crate::harness::{Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("memory::2M", || demand(2 << 20)), kvm_test("memory::5G", || demand(5 << 30))]
}

fn demand(memory: u64) {
    Guest::new("scenario=demand pages=100").memory(memory).run().passed().guest_saw_what_was_reinjected();
}
