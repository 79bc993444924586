//! The example `embed`, a program that embeds the library, runs as it stands.

use std::process::Command as Process;

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test, libraries};

pub fn tests() -> Vec<Trial> {
    // The lab has no compilers.
    if libraries::can_compile() { vec![kvm_test("embed", embed)] } else { Vec::new() }
}

/// Has cargo build and run the example: `cargo test` builds no examples if a test is named.
fn embed() {
    let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "run",
        "--offline",
        "--locked",
        "--quiet",
        "--example",
        "embed",
    ]);
    let finished = Command::new(&[]).finished(cargo.output().expect("cargo can be started"));
    assert_eq!(finished.status(), Some(0), "{finished}");
    for line in ["faults=10 ok", "Exit { status: 1 }: 10 faults, 5 of them writes", "10 were reinjected"] {
        assert!(finished.stdout().contains(line), "no `{line}`\n{finished}");
    }
}
