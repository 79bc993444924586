//! The terminal gets its settings back however the program ends.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::command::binary;
use crate::harness::{Command, Finished, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("terminal::deadline", deadline),
        kvm_test("terminal::signal", signal),
        kvm_test("terminal::escape", escape),
        kvm_test("terminal::input_reaches_the_guest_raw", raw),
    ]
}

/// Runs a spinning guest on a terminal of its own, with `meanwhile` run beside it and `keys` typed when the terminal is raw.
/// The terminal's settings are left in `before`, `during` and `after`, the exit status in `status`.
fn on_terminal(timeout: &str, keys: &[u8], meanwhile: &str) -> Finished {
    let config = format!("[boot]\nkernel = \"tiny\"\ncmdline = \"scenario=spin\"\n[vm]\ntimeout = \"{timeout}\"\n");
    let session = format!(
        "stty -g > before\n\
         (until stty -g < /dev/tty > now; ! cmp -s before now; do sleep 0.1; done; mv now during) &\n{meanwhile}\n\
         {} run config.toml\necho $? > status\nstty -g > after\n",
        binary().display()
    );
    let command = Command::new(&["-qec", "bash session", "/dev/null"])
        .file("config.toml", config.as_bytes())
        .file("session", session.as_bytes());
    let mut process = command.process_of("script");
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    while !command.path("during").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    input.write_all(keys).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    command.finished(output)
}

#[track_caller]
fn restored(finished: &Finished, status: i32) {
    assert_eq!(finished.read("status").trim(), status.to_string(), "{finished}");
    assert_eq!(finished.read("before"), finished.read("after"), "{finished}");
    assert_ne!(finished.read("before"), finished.read("during"), "the terminal was never raw\n{finished}");
}

fn deadline() {
    restored(&on_terminal("2s", b"", ""), 124);
}

fn signal() {
    let kill = "(until [ -e during ]; do sleep 0.1; done; for child in $(cat /proc/$$/task/$$/children); do \
                grep -q vector14 /proc/$child/comm && kill -TERM $child; done) &";
    restored(&on_terminal("60s", b"", kill), 128 + libc::SIGTERM);
}

/// Ctrl-A x ends the VM, as in QEMU.
fn escape() {
    restored(&on_terminal("60s", b"\x01x", ""), 128 + libc::SIGINT);
}

/// Ctrl-C is the guest's: the VM goes on to its deadline.
fn raw() {
    restored(&on_terminal("3s", b"\x03", ""), 124);
}
