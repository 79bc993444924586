//! xv6 for x86, a 32-bit multiboot kernel that many courses use. `VECTOR14_XV6` names its file, built with `make
//! kernelmemfs`; README says where it runs.

use std::io::Write;
use std::process::Child;

use libtest_mimic::Trial;

use crate::harness::{Command, Finished, exception_bitmap_test, kvm_test};
use crate::loaded_watch::terminate;

pub fn tests() -> Vec<Trial> {
    if std::env::var_os("VECTOR14_XV6").is_none() {
        return Vec::new();
    }
    let mut tests = vec![kvm_test("xv6::shell", shell)];
    tests.extend(exception_bitmap_test("xv6::usertests", usertests));
    tests
}

const PROMPT: &str = "\n$ ";

/// Runs xv6 on `vcpus` CPUs, types `line` into its shell, waits for `answer`, and ends the VM.
fn type_into_shell(engine: &str, vcpus: u32, line: &str, answer: &str) -> Finished {
    let kernel = std::env::var("VECTOR14_XV6").unwrap();
    let command = Command::run_config(&format!(
        "[vm]\nmemory = \"256M\"\nvcpus = {vcpus}\ntimeout = \"30min\"\n[boot]\nkernel = \"{kernel}\"\n\
         [intercept]\nengine = \"{engine}\"\n"
    ));
    let enter = |child: &mut Child| writeln!(child.stdin.as_ref().unwrap(), "{line}").unwrap();
    command.finish_after_each(vec![(PROMPT, Box::new(enter)), (answer, Box::new(terminate))])
}

/// Without interception, xv6 finds both CPUs, its I/O APIC and its shell.
fn shell() {
    let finished = type_into_shell("off", 2, "echo hello", "\nhello");
    let stdout = finished.stdout();
    assert!(stdout.contains("cpu1: starting") && stdout.contains("cpu0: starting"), "{finished}");
    assert!(!stdout.contains("not a MP"), "{finished}");
    assert_eq!(finished.summary()["stop"]["reason"], "signal", "{finished}");
}

/// xv6's own tests pass, and the host saw every fault that the kernel reports.
fn usertests() {
    let finished = type_into_shell("exception-bitmap", 1, "usertests", "ALL TESTS PASSED");
    let told = finished.stdout().matches(": trap 14 err ").count();
    let summary = finished.summary();
    assert!(told > 0, "{finished}");
    assert_eq!(summary["faults"]["total"], told, "{finished}");
    assert_eq!(summary["verdicts"]["reinject"], told, "{finished}");
}
