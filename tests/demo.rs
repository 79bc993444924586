//! `vector14 demo` needs no files, and shows faults being reinjected and resolved.

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("demo", demo)]
}

fn demo() {
    let finished = Command::new(&["demo"]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let count = |word: &str| finished.stdout().matches(word).count();
    assert_eq!((count("REINJECTED"), count("RESOLVED")), (3, 3), "{finished}");
    assert!(finished.stdout().contains("faults=3 ok"), "{finished}");
    assert!(finished.stderr().contains("guest passed"), "{finished}");
}
