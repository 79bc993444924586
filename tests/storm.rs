//! Many faults, each of which costs one return from KVM_RUN and no other ioctl; and `vector14 bench`, which measures
//! them.

use libtest_mimic::Trial;

use crate::harness::{Command, engine, kvm_test, kvm_test_with, off_and_on};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("storm", storm),
        kvm_test("storm::from_either_ring", from_either_ring),
        kvm_test_with("strace", "storm::one_kvm_run_a_fault", ioctls),
        kvm_test("storm::bench", bench),
    ]
}

const STORM: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=storm count=10000\"\n[vm]\ntimeout = \"100s\"\n";

fn storm() {
    let finished = Command::run_config(STORM).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert_eq!(finished.summary()["faults"]["total"], 10_000, "{finished}");
    assert_eq!(finished.summary()["verdicts"]["reinject"], 10_000, "{finished}");
}

fn from_either_ring() {
    for ring in [0, 3] {
        let outcome = off_and_on(&format!("scenario=storm count=500 ring={ring}"));
        assert_eq!(outcome.summary.faults.total, 500, "{outcome}");
    }
}

fn ioctls() {
    let command = Command::run_config(STORM).under(&["strace", "-f", "-o", "strace.txt", "-e", "trace=ioctl"]);
    let finished = command.finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let trace = finished.read("strace.txt");
    let calls: Vec<&str> = trace.lines().filter(|line| line.contains("ioctl(")).collect();
    let run = calls.iter().filter(|line| line.contains("KVM_RUN")).count() as u64;
    let exits = finished.summary()["exits"]["total"].as_u64().unwrap();
    let faults = finished.summary()["exits"]["fault"].as_u64().unwrap();
    assert_eq!(faults, 10_000, "{finished}");
    assert!(run * 100 <= exits * 101, "{run} KVM_RUN for {exits} exits");
    // All ioctls but KVM_RUN set up the machine: a fixed, small number.
    let others = calls.len() as u64 - run;
    assert!(others < 100, "{others} other ioctls in a run of {faults} faults");
}

/// Times are not checked here: `make bench-check` compares them with limits.
fn bench() {
    let finished = Command::new(&["bench", "--json", "--engine", engine().name()]).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let bench: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    let names: Vec<&str> = bench["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["exit", "unhooked", "skip", "resolve", "reinject"], "{finished}");
    for verdict in ["skip", "resolve", "reinject"] {
        assert!(bench["ratios"][verdict].as_f64().unwrap() > 0.0, "{finished}");
    }
    assert_eq!(bench["engine"], engine().name(), "{finished}");
}
