//! A triple fault ends the guest; the host reports a crash.

use libtest_mimic::Trial;
use vector14::summary::Stop;

use crate::harness::{Command, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("crash", crash), kvm_test("crash::status", status)]
}

fn crash() {
    for guest in [Guest::new("scenario=crash"), Guest::new("scenario=crash").off()] {
        let outcome = guest.run().balanced();
        assert!(matches!(outcome.summary.stop, Stop::Crash { .. }), "{outcome}");
    }
}

fn status() {
    let config = "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=crash\"\n";
    let finished = Command::run_config(config).finish().failed_with(4, &["crash"]);
    assert_eq!(finished.summary()["stop"]["reason"], "crash", "{finished}");
}
