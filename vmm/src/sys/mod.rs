//! All unsafe code: the shared `kvm_run` page, memory slots, the kick signal, backtraces of other threads, shared
//! libraries, signals that end the process, and the terminal.
//!
//! Everything that this module exports is safe to use. The rest of the crate denies `unsafe_code`.
#![allow(unsafe_code)]

pub(crate) mod backtrace;
pub(crate) mod dynamic;
pub(crate) mod endings;
pub(crate) mod kick;
pub(crate) mod kvm_run;
pub(crate) mod mapped;
pub(crate) mod ram;
mod slots;
pub(crate) mod terminal;
pub(crate) mod words;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
