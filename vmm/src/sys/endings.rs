//! Signals that end or stop the process, and what must be done first.
//!
//! The handlers are async-signal-safe: they load atomics, set the terminal and change signal dispositions.

use std::io;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libc::{c_int, c_void, siginfo_t};
use signal_hook::low_level::emulate_default_handler;

use super::terminal::{restore, set_raw_again};

/// Signals that end a process unless it handles them, and that nothing else here handles.
const FATAL: [c_int; 16] = [
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSEGV,
    libc::SIGSTKFLT,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// The action for each of [`FATAL`] that was in place before.
static BEFORE: [AtomicPtr<libc::sigaction>; FATAL.len()] = [const { AtomicPtr::new(ptr::null_mut()) }; FATAL.len()];

/// Whether the next signal is a VM's first, which does not end the process.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// While this lives, the first of the signals does not end the process.
pub(crate) struct Awaited(());

/// Makes `signals` end the process, each as it would by default, after the terminal is restored. The first of them
/// does not, as long as the guard lives.
///
/// # Errors
/// The host refuses a handler.
pub(crate) fn await_first(signals: impl Iterator<Item = c_int>) -> io::Result<Awaited> {
    static INSTALL: Once = Once::new();
    let mut installed = Ok(());
    INSTALL.call_once(|| {
        installed = signals.into_iter().try_for_each(|signal| {
            let end = move || {
                if !AWAITED.swap(false, Ordering::AcqRel) {
                    restore();
                    let _ = emulate_default_handler(signal);
                }
            };
            // SAFETY: the action is async-signal-safe, as the module says; emulate_default_handler is made for handlers.
            unsafe { signal_hook::low_level::register(signal, end) }.map(drop)
        });
    });
    installed?;
    AWAITED.store(true, Ordering::Release);
    Ok(Awaited(()))
}

impl Drop for Awaited {
    fn drop(&mut self) {
        AWAITED.store(false, Ordering::Release);
    }
}

/// Restores the terminal before a signal ends or stops the process, and makes it raw again when the process
/// continues.
///
/// # Errors
/// The host refuses a handler.
pub(crate) fn restore_terminal_before() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    let mut installed = Ok(());
    INSTALL.call_once(|| {
        installed = FATAL.iter().zip(&BEFORE).try_for_each(|(signal, before)| take_over(*signal, before));
        let stop = || {
            restore();
            let _ = emulate_default_handler(libc::SIGTSTP);
        };
        for (signal, action) in [(libc::SIGTSTP, stop as fn()), (libc::SIGCONT, set_raw_again)] {
            // SAFETY: the actions are async-signal-safe, as the module says.
            let registered = unsafe { signal_hook::low_level::register(signal, action) };
            installed = std::mem::replace(&mut installed, Ok(())).and(registered.map(drop));
        }
    });
    installed
}

fn take_over(signal: c_int, before: &AtomicPtr<libc::sigaction>) -> io::Result<()> {
    let mut old = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `old` is a sigaction to be filled in, and no new one is given.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigaction succeeded, so it has filled in all of it.
    let old = unsafe { old.assume_init() };
    if old.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    let mut new = old;
    new.sa_sigaction = on_fatal as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // Never freed: a handler may look at it at any time.
    before.store(Box::into_raw(Box::new(old)), Ordering::Release);
    // SAFETY: `new` is a whole sigaction; its handler has the arguments that SA_SIGINFO says, and is async-signal-safe.
    match unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Restores the terminal, and leaves the signal to the action that was in place before.
extern "C" fn on_fatal(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    restore();
    let before = FATAL.iter().zip(&BEFORE).find(|(fatal, _)| **fatal == signal);
    let before = before.map_or(ptr::null_mut(), |(_, before)| before.load(Ordering::Acquire));
    // SAFETY:
    // 1. `before` is null or what `take_over` has leaked; sigaction and raise are async-signal-safe.
    // 2. The kernel fills in `info` for a handler with SA_SIGINFO.
    unsafe {
        libc::sigaction(signal, before, ptr::null_mut());
        // A faulting instruction faults again when this returns, which tells more than a signal that is sent.
        let was_sent = (*info).si_code <= 0;
        if was_sent {
            libc::raise(signal);
        }
    }
}
