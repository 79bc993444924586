//! A hypervisor that intercepts guest page faults.
//!
//! Boots a guest under KVM, exits at every guest #PF, asks hooks what to do with it, and either reinjects the fault
//! into the guest's own handler or resolves it. The path of a fault fits on one screen, in `vm/run.rs`.
//!
//! # Layers
//! Each uses only those below it, and `tests/layers.rs` refuses an import that goes up.
//! - `cli`: the `vector14` command
//! - `commands`: what its commands are made of: [`config`] files, [`ctl`], [`display`], [`doctor`], [`bench`](mod@bench),
//!   [`replay`], [`reload`]
//! - [`vm`]: runs a VM from its config to its [`summary`]; its threads, and the path of a fault
//! - `intercept`: the engines, the [`chain`] of hooks, hooks from a [`library`], the guest as hooks see it
//! - `machine`: memory, vCPUs, devices, and what the machine boots
//! - `sys`: all unsafe code

mod commands;
mod intercept;
mod machine;
mod sys;
pub mod vm;

pub use commands::{bench, config, ctl, display, doctor, reload, replay};
pub use intercept::progress::LOOP_LIMIT;
pub use intercept::{chain, library};
pub use machine::outlet;
pub use vm::summary;
