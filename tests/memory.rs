//! The smallest guest memory, memory that does not fit below the hole under 4 GiB, and what the guest finds in that
//! hole.

use libtest_mimic::Trial;

use crate::harness::{Command, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("memory::2M", || demand(2 << 20)),
        kvm_test("memory::5G", || demand(5 << 30)),
        kvm_test("memory::nothing-in-the-hole", nothing_in_the_hole),
        kvm_test("memory::what-hooks-took-in-the-hole", what_hooks_took_in_the_hole),
    ]
}

fn demand(memory: u64) {
    Guest::new("scenario=demand pages=100").memory(memory).run().passed().guest_saw_what_was_reinjected();
}

/// Number of pages of memory that the guest finds in the hole: the N in its line `N of M pages are memory`.
#[track_caller]
fn found(console: &str) -> u64 {
    let count = console.lines().find_map(|line| line.strip_prefix("hole: ")?.split_once(" of ")?.0.parse().ok());
    count.unwrap_or_else(|| panic!("the guest gave no count\n{console}"))
}

/// As long as no hook has taken a page, the pool is a hole.
fn nothing_in_the_hole() {
    let outcome = Guest::new("scenario=hole pages=1024").memory(2 << 20).run().passed();
    assert_eq!(found(&outcome.console), 0, "{outcome}");
}

/// The guest finds the pages that a hook took, and at most a sixteenth more. Whatever the guest writes to these, the
/// hook is given zeroed pages.
fn what_hooks_took_in_the_hole() {
    const TAKEN: u64 = 100;
    let hidden = vector14_guest_abi::window::HIDDEN;
    let finished = Command::run_config(&format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=hole pages=256 touch={TAKEN}\"\n\
         [vm]\ntimeout = \"60s\"\nmemory = \"2M\"\n\
         [[hook]]\nname = \"zero-fill\"\nstart = \"{:#x}\"\nend = \"{:#x}\"\n",
        hidden.start, hidden.end
    ))
    .finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let found = found(&finished.stdout());
    assert!((TAKEN..=TAKEN + TAKEN / 16).contains(&found), "{found} pages\n{finished}");
}
