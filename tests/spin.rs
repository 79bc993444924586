//! A guest that never ends and never exits is ended by the deadline, or by a signal.

use std::time::Duration;

use libtest_mimic::Trial;
use vector14::summary::Stop;

use crate::harness::{Command, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("spin", spin),
        kvm_test("spin::deadline_status", deadline_status),
        kvm_test("spin::signal_status", signal_status),
    ]
}

const SPIN: &str = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=spin\"\n";

fn spin() {
    for guest in [Guest::new("scenario=spin"), Guest::new("scenario=spin").off()] {
        let outcome = guest.timeout(Duration::from_millis(300)).run().balanced();
        assert_eq!(outcome.summary.stop, Stop::Deadline, "{outcome}");
    }
}

fn deadline_status() {
    let finished = Command::run_config(&format!("{SPIN}[vm]\ntimeout = \"200ms\"\n")).finish().failed_with(124, &[]);
    assert_eq!(finished.summary()["stop"]["reason"], "deadline", "{finished}");
}

fn signal_status() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // The deadline is only there so that a lost signal fails the test instead of hanging it.
        let config = format!("{SPIN}[vm]\ntimeout = \"60s\"\n");
        let finished = Command::run_config(&config).finish_once_running(|process| {
            let sent =
                std::process::Command::new("kill").args([format!("-{signal}"), process.id().to_string()]).status();
            assert!(sent.unwrap().success());
        });
        assert_eq!(finished.status(), Some(128 + signal), "{finished}");
        assert_eq!(finished.summary()["stop"]["signal"], signal, "{finished}");
    }
}
