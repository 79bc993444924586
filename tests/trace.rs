//! The trace hook writes one line per fault, and loses none unless the disk is full.

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("trace", one_line_a_fault),
        kvm_test("trace::two_hooks", with_count),
        kvm_test("trace::full_disk", full_disk),
    ]
}

fn config(hooks: &str) -> String {
    format!("[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=demand pages=1000\"\n[vm]\ntimeout = \"60s\"\n{hooks}")
}

fn one_line_a_fault() {
    let hook = "[[hook]]\nname = \"trace\"\nformat = \"json\"\nfile = \"faults.jsonl\"\n";
    let finished = Command::run_config(&config(hook)).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let lines = finished.read("faults.jsonl");
    let faults: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(finished.stdout().contains(&format!("faults={} ok", faults.len())), "{finished}");
    assert_eq!(faults.len(), 1000, "{finished}");
    for (index, fault) in faults.iter().enumerate() {
        assert_eq!(fault["seq"], index, "{fault}");
    }
    let summary = finished.summary();
    let sum: u64 = summary["verdicts"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(summary["faults"]["total"], 1000, "{finished}");
    assert_eq!(sum, 1000, "{finished}");
    assert_eq!(summary["hooks"][0]["calls"], 1000, "{finished}");
}

fn with_count() {
    let hooks = "[[hook]]\nname = \"trace\"\nfile = \"faults.txt\"\n[[hook]]\nname = \"count\"\n";
    let finished = Command::run_config(&config(hooks)).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert_eq!(finished.read("faults.txt").lines().count(), 1000, "{finished}");
    assert!(!finished.summary()["hooks"][1]["report"]["tables"].as_array().unwrap().is_empty(), "{finished}");
}

fn full_disk() {
    let hook = "[[hook]]\nname = \"trace\"\nfile = \"/dev/full\"\n";
    let finished = Command::run_config(&config(hook)).finish();
    assert_eq!(finished.status(), Some(0), "the run goes on\n{finished}");
    assert!(finished.stdout().contains("faults=1000 ok"), "{finished}");
    let warning = finished.summary()["hooks"][0]["report"]["warnings"][0].as_str().unwrap_or_default().to_owned();
    for word in ["1000 of 1000 lines", "/dev/full", "No space left on device"] {
        assert!(warning.contains(word), "no `{word}` in `{warning}`\n{finished}");
        assert!(finished.stderr().contains(word), "no `{word}` on standard error\n{finished}");
    }
}
