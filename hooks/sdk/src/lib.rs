//! What a vector14 hook is written against.
//!
//! A hook is called once for every page fault of a guest and answers with a [`Verdict`]:
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use vector14_hook::{Fault, Guest, Hook, Result, Verdict};
//!
//! /// Counts the writes from user mode, and leaves every fault to the guest.
//! #[derive(Default)]
//! struct Writes(AtomicU64);
//!
//! impl Hook for Writes {
//!     fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
//!         if fault.from_user() && fault.error_code.contains(vector14_hook::ErrorCode::WRITE) {
//!             self.0.fetch_add(1, Relaxed);
//!         }
//!         Ok(Verdict::Pass)
//!     }
//! }
//! ```
//!
//! # Layout
//! - [`address`]: `Va`, `Pa`, `Cr3`
//! - [`fault`]: `Fault` and its `ErrorCode`
//! - [`verdict`]: the `Verdict` on a fault
//! - [`guest`]: the `Guest` handle
//! - [`hook`]: the `Hook` trait and `HookType`, by which a config file names one
//! - [`options`][], [`report`][]: what goes into a hook from its user, and what comes out at the end

pub mod address;
pub mod fault;
pub mod guest;
pub mod hook;
pub mod options;
pub mod report;
pub mod verdict;

pub use address::{Cr3, PAGE_SIZE, Pa, Va};
pub use fault::{ErrorCode, Fault};
pub use guest::{Access, Guest, GuestError, Registers, SystemRegisters, Translation};
pub use hook::{Error, Hook, HookType, OptionDoc, Result};
pub use options::{Options, OptionsError};
pub use report::{Report, Table};
pub use verdict::{Exception, Verdict};

/// Keeps the hook in the README compiling.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
