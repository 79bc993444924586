//! What the tests share: guests inside of this process ([`guest`]), the command as its users run it ([`command`]), and
//! hooks that tests need ([`hooks`]).

pub mod command;
pub mod guest;
pub mod hooks;

use libtest_mimic::Trial;

pub use self::command::{Command, Finished};
pub use self::guest::{Guest, Outcome, off_and_on};
pub use self::hooks::{Act, Recorder, panic_at};

/// A test that needs no KVM.
pub fn test(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

/// A test that runs guests. Without KVM it counts as ignored and says so; in CI it fails.
pub fn kvm_test(name: &str, body: fn()) -> Trial {
    let usable = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    match usable {
        Ok(_) => test(name, body),
        Err(error) if std::env::var_os("CI").is_some() => {
            Trial::test(name, move || Err(format!("/dev/kvm can't be used ({error}), and CI must have it").into()))
        }
        Err(error) => {
            eprintln!("SKIPPED {name}: /dev/kvm can't be used ({error}); `vector14 doctor` says what to do");
            test(name, body).with_ignored_flag(true)
        }
    }
}
