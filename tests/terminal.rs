//! The terminal gets its old settings back however the program ends.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::command::binary;
use crate::harness::libraries::{self, table};
use crate::harness::{Command, Finished, kvm_test};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        kvm_test("terminal::deadline", deadline),
        kvm_test("terminal::signal", signal),
        kvm_test("terminal::escape", escape),
        kvm_test("terminal::signals_that_kill", killed),
        kvm_test("terminal::stopped_and_continued", stopped),
        kvm_test("terminal::restored_before_hooks_end", before_hooks_end),
        kvm_test("terminal::input_reaches_the_guest_raw", raw),
    ];
    if libraries::can_compile() {
        tests.push(kvm_test("terminal::a_hook_that_crashes", crashed));
    }
    tests
}

/// Runs a spinning guest on a terminal of its own, with `meanwhile` beside it, and types `keys` once the terminal is
/// raw. Leaves the terminal's settings in `before`, `during` and `after`, and the exit status in `status`.
fn on_terminal(timeout: &str, keys: &[u8], meanwhile: &str) -> Finished {
    with_hooks("scenario=spin", "", timeout, keys, meanwhile)
}

fn with_hooks(cmdline: &str, hooks: &str, timeout: &str, keys: &[u8], meanwhile: &str) -> Finished {
    let config = format!("[boot]\nkernel = \"tiny\"\ncmdline = \"{cmdline}\"\n[vm]\ntimeout = \"{timeout}\"\n{hooks}");
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

/// Runs shell commands beside the guest once the terminal is raw; `$vm` is the process of vector14.
fn beside(commands: &str) -> String {
    format!(
        "(until [ -e during ]; do sleep 0.1; done; for child in $(cat /proc/$$/task/$$/children); do \
         grep -q vector14 /proc/$child/comm && vm=$child; done; {commands}) &"
    )
}

fn signal() {
    restored(&on_terminal("60s", b"", &beside("kill -TERM $vm")), 128 + libc::SIGTERM);
}

/// Signals that end the process by default.
fn killed() {
    for signal in [libc::SIGABRT, libc::SIGUSR2, libc::SIGALRM, libc::SIGXCPU] {
        restored(&on_terminal("60s", b"", &beside(&format!("kill -{signal} $vm"))), 128 + signal);
    }
}

/// A hook's library crashes the process.
fn crashed() {
    let source = libraries::SUBJECT.replace("uint64_t window", "*(volatile int *)0 = 0; uint64_t window");
    let library = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(library.path(), libraries::compile(&source, &[])).unwrap();
    let guest = "scenario=quiet cycles=6000000000";
    restored(&with_hooks(guest, &table(library.path(), ""), "60s", b"", ""), 128 + libc::SIGSEGV);
}

/// Shell commands that wait until the terminal's settings are those in `file`, and then create `name`.
fn until_as_in(file: &str, name: &str) -> String {
    format!("until stty -g < /dev/tty > now2; cmp -s {file} now2; do sleep 0.1; done; touch {name};")
}

/// While the process is stopped, the terminal has its old settings. Once the process goes on, the terminal is raw
/// again.
fn stopped() {
    let (cooked, raw) = (until_as_in("before", "cooked"), until_as_in("during", "raw"));
    let commands = format!("kill -TSTP $vm; {cooked} kill -CONT $vm; {raw} kill -TERM $vm");
    let finished = on_terminal("20s", b"", &beside(&commands));
    restored(&finished, 128 + libc::SIGTERM);
    assert!(finished.path("cooked").exists() && finished.path("raw").exists(), "{finished}");
}

/// The terminal is restored before the hooks end, so a hook that hangs at its end does not keep it.
fn before_hooks_end() {
    let hook = table(&libraries::in_rust(), "act = \"hang-at-the-end\"\ntimeout = \"60s\"");
    let commands = format!("kill -TERM $vm; {} kill -TERM $vm", until_as_in("before", "cooked"));
    let finished = with_hooks("scenario=spin", &hook, "60s", b"", &beside(&commands));
    restored(&finished, 128 + libc::SIGTERM);
    assert!(finished.path("cooked").exists(), "{finished}");
}

/// Ctrl-A x ends the VM, as in QEMU.
fn escape() {
    restored(&on_terminal("60s", b"\x01x", ""), 128 + libc::SIGINT);
}

/// Ctrl-C goes to the guest: the VM runs to its deadline.
fn raw() {
    restored(&on_terminal("3s", b"\x03", ""), 124);
}
