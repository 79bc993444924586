//! `vector14 demo`: needs nothing, and shows a fault being reinjected and one being resolved.

use libtest_mimic::Trial;

use crate::harness::{Command, emulated_by_qemu, kvm_test};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![kvm_test("demo", demo)];
    // What is promised of a CPU is not promised of an emulated one.
    if !emulated_by_qemu() {
        tests.push(kvm_test("demo::is_quick", quick));
    }
    tests
}

fn demo() {
    let finished = Command::new(&["demo"]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let count = |word: &str| finished.stdout().matches(word).count();
    assert_eq!((count("REINJECTED"), count("RESOLVED")), (3, 3), "{finished}");
    assert!(finished.stdout().contains("faults=3 ok"), "{finished}");
    assert!(finished.stderr().contains("guest passed"), "{finished}");
}

/// To the end, which is beyond the first fault, in less than 50 ms of CPU time of its own.
fn quick() {
    let finished = Command::new(&["demo"]).under(&["bash", "-c", "TIMEFORMAT='cpu %U'; time \"$0\" \"$@\""]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let stderr = finished.stderr();
    let seconds = stderr.lines().find_map(|line| line.strip_prefix("cpu ")).and_then(|cpu| cpu.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds < 0.05), "{seconds:?} s of user time\n{finished}");
}
