//! Pages whose faults are fatal in the guest: it passes only if a hook resolves them and its own handler never runs.

use libtest_mimic::Trial;
use vector14::summary::Stop;

use crate::harness::{Command, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("hidden", hidden),
        kvm_test("hidden::fails_without_the_host", without_the_host),
        kvm_test("hidden::zeroed_pages", zeroed),
    ]
}

fn zero_fill(fill: &str) -> String {
    let window = vector14_guest_abi::window::HIDDEN;
    format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=hidden pages=100 fill={fill}\"\n\
         [vm]\ntimeout = \"60s\"\n\
         [[hook]]\nname = \"zero-fill\"\nstart = \"{:#x}\"\nend = \"{:#x}\"\nfill = {fill}\n",
        window.start, window.end
    )
}

fn hidden() {
    let finished = Command::run_config(&zero_fill("0x5a")).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = finished.summary();
    assert_eq!(summary["faults"]["total"], 100, "{finished}");
    assert_eq!(summary["verdicts"]["resolve"], 100, "{finished}");
    assert!(finished.stdout().contains("faults=0 ok"), "the guest's handler ran\n{finished}");
}

fn zeroed() {
    let finished = Command::run_config(&zero_fill("0x00")).finish();
    assert_eq!(finished.status(), Some(0), "{finished}");
}

fn without_the_host() {
    for guest in [Guest::new("scenario=hidden"), Guest::new("scenario=hidden").off()] {
        let outcome = guest.run().balanced();
        assert!(matches!(outcome.summary.stop, Stop::Exit { status } if status != 1), "{outcome}");
    }
}
