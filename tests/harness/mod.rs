//! Code that the tests share: guests in this process ([`guest`]), the command as users run it ([`command`]), hooks for
//! tests ([`hooks`]), hooks in shared libraries ([`libraries`]), an oracle for error codes ([`oracle`]), files that
//! back a pager ([`paged`]), and the suite's engine ([`engine`]).

pub mod command;
pub mod engine;
pub mod guest;
pub mod hooks;
pub mod libraries;
pub mod oracle;
pub mod paged;

use std::fs::File;
use std::process::Stdio;

use libtest_mimic::Trial;

pub use self::command::{Command, Finished};
pub use self::engine::{engine, exception_bitmap_test, of_gate};
pub use self::guest::{Guest, Outcome, off_and_on};
pub use self::hooks::{Act, Recorder, panic_at};
pub use self::oracle::Oracle;

/// A test that needs no KVM.
pub fn test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

/// A test that runs guests. Without KVM it is ignored, with a message; in CI it fails.
pub fn kvm_test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    let usable = File::options().read(true).write(true).open("/dev/kvm");
    let lacks =
        usable.err().map(|error| format!("/dev/kvm can't be used ({error}): `vector14 doctor` says what to do"));
    test_unless(lacks, name, body)
}

/// As [`kvm_test`], for a test that also needs `program`, which not every machine has.
pub fn kvm_test_with(program: &str, name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    match std::process::Command::new(program).arg("--version").stdout(Stdio::null()).status() {
        Ok(_) => kvm_test(name, body),
        Err(error) => test_unless(Some(format!("{program} can't be run ({error}): install it")), name, body),
    }
}

/// A test of a guest that turns paging on outside of long mode. kvm-pvm ends such guests: there it is ignored, with a
/// message.
pub fn protected_mode_test(name: &str, body: fn()) -> Trial {
    let test = kvm_test(name, body);
    if !std::path::Path::new("/sys/module/kvm_pvm").exists() {
        return test;
    }
    eprintln!("SKIPPED {name}: kvm-pvm ends guests that turn paging on outside of long mode");
    test.with_ignored_flag(true)
}

fn test_unless(lacks: Option<String>, name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    match lacks {
        None => test(name, body),
        Some(lacks) if std::env::var_os("CI").is_some() => Trial::test(name, move || Err(lacks.into())),
        Some(lacks) => {
            eprintln!("SKIPPED {name}: {lacks}");
            test(name, body).with_ignored_flag(true)
        }
    }
}

/// Whether the host's CPU is emulated by QEMU, which gets some error codes wrong (guest/tiny/src/quirks.rs).
pub fn emulated_by_qemu() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpuinfo| cpuinfo.contains("QEMU TCG"))
}
