//! The end of a run if a hook does not end, or the host fails.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::libraries::{self, table};
use crate::harness::{Command, Finished, kvm_test, kvm_test_with, test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("ending::a_hook_that_does_not_end", hook_hangs),
        kvm_test("ending::a_second_signal", second_signal),
        kvm_test_with("strace", "ending::kvm_run_fails", kvm_run_fails),
        kvm_test_with("strace", "ending::a_flush_fails", flush_fails),
        test("ending::no_summary_without_a_run", no_summary),
    ]
}

/// A run with a hook that hangs in `on_end`, between two that do not.
fn hanging(cmdline: &str, timeout: &str) -> Command {
    let count = "[[hook]]\nname = \"count\"\n";
    let subject = table(&libraries::in_rust(), &format!("act = \"hang-at-the-end\"\ntimeout = \"{timeout}\""));
    Command::run_config(&format!(
        "[boot]\nkernel = \"tiny\"\ncmdline = \"{cmdline}\"\n[vm]\ntimeout = \"60s\"\n{count}{subject}{count}"
    ))
}

/// Waits for the process to end, and kills it after 30 s.
fn end(mut child: Child) -> Output {
    let ended = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        child.try_wait().unwrap().is_some()
    });
    if !ended {
        child.kill().unwrap();
    }
    child.wait_with_output().unwrap()
}

fn start(command: &Command) -> Child {
    command.process().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn assert_balanced(finished: &Finished) -> Value {
    let summary = finished.summary();
    let decided: u64 = summary["verdicts"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(summary["faults"]["total"], decided, "{finished}");
    summary
}

/// The timeout ends the wait for the hook that hangs, and the hooks before and after it report.
fn hook_hangs() {
    let command = hanging("scenario=demand pages=10", "500ms");
    let output = end(start(&command));
    let finished = command.finished(output);
    assert_eq!(finished.status(), Some(0), "{finished}");
    let summary = assert_balanced(&finished);
    let ended: Vec<_> = summary["hooks"].as_array().unwrap().iter().map(|hook| hook["ended"] == true).collect();
    assert_eq!(ended, [true, false, true], "{finished}");
    let note = summary["notes"].to_string();
    assert!(note.contains("`subject` has not ended within its timeout of 500ms"), "{finished}");
}

/// The first signal ends the VM. The second ends the process, whatever its hooks do.
fn second_signal() {
    let command = hanging("scenario=spin", "60s");
    let mut child = start(&command);
    std::thread::sleep(Duration::from_secs(2));
    let mut heard = String::new();
    signal(&child);
    let mut stderr = child.stderr.take().unwrap();
    while !heard.contains("subject: at the end") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stderr, &mut byte).unwrap();
        heard.push(byte[0].into());
    }
    assert!(child.try_wait().unwrap().is_none(), "the process ended at the first signal");
    signal(&child);
    let output = end(child);
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{heard}");
}

fn signal(child: &Child) {
    let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Runs a guest. The `nth` ioctl of its vCPU thread fails with EIO.
fn failing(nth: u32, cmdline: &str, hook: &str) -> Finished {
    let config = format!("[boot]\nkernel = \"tiny\"\ncmdline = \"{cmdline}\"\n[vm]\ntimeout = \"60s\"\n{hook}");
    let inject = format!("inject=ioctl:error=EIO:when={nth}");
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=ioctl", "-e", &inject];
    Command::run_config(&config).under(&strace).finish()
}

/// The command reports a failure of the host. The summary still has the ledger and the hooks' reports.
fn kvm_run_fails() {
    let finished = failing(2000, "scenario=storm count=100000", "[[hook]]\nname = \"count\"\n");
    let finished = finished.failed_with(3, &["KVM_RUN failed", "Input/output error"]);
    let summary = assert_balanced(&finished);
    assert!(summary["faults"]["total"].as_u64().unwrap() > 100, "{finished}");
    assert_eq!(
        (&summary["stop"]["reason"], &summary["hooks"][0]["ended"]),
        (&"crash".into(), &true.into()),
        "{finished}"
    );
}

/// After a hook unmaps a page, the VM drops translations. That takes some of the ioctls of the fault, and whichever of
/// them fails, the fault has a verdict.
fn flush_fails() {
    let hook = table(&libraries::in_rust(), "act = \"map-and-unmap\"");
    let flush_failed = (300..330).any(|nth| {
        let finished = failing(nth, "scenario=demand pages=200", &hook);
        let summary = assert_balanced(&finished);
        assert_eq!(summary["stop"]["reason"], "crash", "{finished}");
        summary["stop"]["detail"].as_str().unwrap().contains("can't be flushed")
    });
    assert!(flush_failed, "none of the failed ioctls was a flush");
}

/// A run that fails to start leaves no file that could be taken for a summary.
fn no_summary() {
    let command = Command::run_config("[boot]\nkernel = \"tiny\"\n").argument("--kvm").argument("/no/such/kvm");
    let finished = command.finish().failed_with(3, &["/no/such/kvm"]);
    assert!(!finished.path("summary.json").exists(), "{finished}");
}
