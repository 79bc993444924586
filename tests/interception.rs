//! Interception that is off, or detached and attached while the guest runs: the guest does not notice.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::{Command, engine, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("interception::off", off), kvm_test("interception::detach_and_attach", detach_and_attach)]
}

fn config(engine: &str, count: u32) -> String {
    format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=storm count={count}\"\n\
         [intercept]\nengine = \"{engine}\"\n[vm]\ntimeout = \"100s\"\n"
    )
}

fn off() {
    let finished = Command::run_config(&config("off", 1000)).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["engine"], "off", "{finished}");
    assert_eq!(summary["armed_ms"], serde_json::Value::Null, "{finished}");
    assert_eq!(summary["faults"]["total"], 0, "{finished}");
}

/// SIGUSR1 toggles interception ten times in the middle of a storm. The guest's own count is right to the last fault,
/// and the host has seen some of the faults but not all.
fn detach_and_attach() {
    const FAULTS: u32 = 200_000;
    let finished = Command::run_config(&config(engine().name(), FAULTS)).finish_after("kind=fault", |child| {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(100));
            let toggled = std::process::Command::new("kill").args(["-USR1", &child.id().to_string()]).status();
            assert!(toggled.unwrap().success());
        }
    });
    assert_eq!(finished.status(), Some(0), "{finished}");
    assert!(finished.stdout().contains(&format!("faults={FAULTS} ok")), "{finished}");
    let seen = finished.summary()["faults"]["total"].as_u64().unwrap();
    assert!(seen > 0 && seen < u64::from(FAULTS), "{seen} faults seen of {FAULTS}\n{finished}");
    assert_eq!(finished.summary()["verdicts"]["reinject"], seen, "{finished}");
}
