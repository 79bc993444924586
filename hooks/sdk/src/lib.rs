//! The SDK that vector14 hooks are written against.
//!
//! A hook is called once for every page fault of a guest and answers with a [`Verdict`]:
//!
//! ```
//! use vector14_hook::{Counter, ErrorCode, Fault, Guest, Hook, PerVcpu, Result, Verdict};
//!
//! /// Counts the writes from user mode, and leaves every fault to the guest.
//! #[derive(Default)]
//! struct Writes(PerVcpu<Counter>);
//!
//! impl Hook for Writes {
//!     fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
//!         if fault.from_user() && fault.error_code.contains(ErrorCode::WRITE) {
//!             self.0.of(fault).add(1);
//!         }
//!         Ok(Verdict::Pass)
//!     }
//! }
//! ```
//!
//! # Layout
//! - [`address`]: `Va`, `Pa`, `Cr3`
//! - [`fault`]: `Fault` and its `ErrorCode`
//! - [`verdict`]: the `Verdict` on a fault, and the `VerdictKind` under which it is counted
//! - [`guest`], [`error`]: the `Guest` handle, and why its calls fail; [`paging`]: the page tables of the guest
//! - [`code`]: the faulting instruction
//! - [`per_vcpu`]: state that is cheap to update from several vCPUs
//! - [`hook`]: the `Hook` trait; `from_fn`, a hook from a closure; `HookType`, which gives a hook its name in config files
//! - `mock` (a feature): a guest for tests, without KVM
//! - [`options`][], [`report`][]: a hook's input from its user, and its results at the end
//! - [`export!`], [`abi`]: hooks in shared libraries; [`panics`]: calls into hooks that may panic

pub mod abi;
pub mod address;
pub mod code;
pub mod error;
pub mod fault;
pub mod guest;
pub mod hook;
#[cfg(feature = "mock")]
pub mod mock;
pub mod options;
pub mod paging;
pub mod panics;
pub mod per_vcpu;
pub mod report;
pub mod verdict;

pub use address::{Cr3, FRAME, PAGE_SIZE, Pa, Va};
pub use code::{Code, Instruction};
pub use error::GuestError;
pub use fault::{ErrorCode, Fault};
pub use guest::{Guest, GuestKind, Registers, SystemRegisters};
pub use hook::{Error, Hook, HookType, OptionDoc, Result, from_fn};
pub use options::{Options, OptionsError};
pub use paging::{Access, EntryFlags, Mapping, Step, TableEntry, Translation, Walk};
pub use per_vcpu::{Counter, MAX_VCPUS, PerVcpu};
pub use report::{Report, Table};
pub use verdict::{Exception, Verdict, VerdictError, VerdictKind};

/// Keeps the hook in the README compiling.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Runs the steps of the guide.
#[cfg(all(doctest, feature = "mock"))]
#[doc = include_str!("../../../docs/hooks.md")]
struct Guide;
