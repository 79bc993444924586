//! The terminal on standard input: put into raw mode, and restored however the program ends or is stopped.
//!
//! Signal handlers call into this module: everything from [`restore`] down is async-signal-safe (atomics, tcsetattr and
//! tcgetpgrp as plain system calls).

use std::io::{self, IsTerminal};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use rustix::stdio::stdin;
use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The settings of the terminal that is raw at the moment; null if none is.
static RAW: AtomicPtr<Settings> = AtomicPtr::new(ptr::null_mut());

struct Settings {
    original: Termios,
    raw: Termios,
}

/// Restores the terminal's original settings when dropped.
pub(crate) struct RawTerminal(());

/// Puts the terminal on standard input into raw mode, so that every key goes to the guest. `None` if standard input
/// is not a terminal. Calls `prepare` right before.
///
/// # Errors
/// The terminal refuses the new settings.
pub(crate) fn raw(prepare: impl FnOnce() -> io::Result<()>) -> io::Result<Option<RawTerminal>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let original = tcgetattr(stdin())?;
    let mut raw = original.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
    raw.input_modes -= InputModes::ICRNL | InputModes::IXON;
    prepare()?;
    // Never freed: a signal handler on another thread may still look at it.
    let settings = Box::leak(Box::new(Settings { original, raw }));
    RAW.store(settings, Ordering::Release);
    let terminal = RawTerminal(());
    set(&settings.raw)?;
    Ok(Some(terminal))
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
        RAW.store(ptr::null_mut(), Ordering::Release);
        // A handler that has made it raw again meanwhile sees that it should not have.
    }
}

fn settings() -> Option<&'static Settings> {
    // SAFETY: the pointer is null, or to what `raw` has leaked, which nobody changes.
    unsafe { RAW.load(Ordering::Acquire).as_ref() }
}

/// Restores the terminal's original settings, if it is raw.
pub(super) fn restore() {
    if let Some(settings) = settings() {
        let _ = set(&settings.original);
    }
}

/// Makes the terminal raw again, if it should be.
pub(super) fn set_raw_again() {
    if let Some(settings) = settings() {
        let _ = set(&settings.raw);
        if self::settings().is_none() {
            let _ = set(&settings.original);
        }
    }
}

/// Sets the terminal, unless it belongs to another job: then the kernel would stop this process (SIGTTOU).
fn set(settings: &Termios) -> rustix::io::Result<()> {
    match tcgetpgrp(stdin()) {
        Ok(foreground) if foreground != rustix::process::getpgrp() => Ok(()),
        Ok(_) | Err(_) => tcsetattr(stdin(), OptionalActions::Now, settings),
    }
}
