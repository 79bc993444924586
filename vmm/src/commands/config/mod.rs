//! The config file: what to boot, on which machine, and which hooks its faults go through.
//!
//! [`Config::load`] turns a TOML file and the command line's `--set` texts into a [`Config`], or into a [`ConfigError`]
//! that lists every error in them, each with its place. [`Config::create_hooks`] then creates the hooks of the VM's
//! chain. Nothing here is on the path of a fault.
//!
//! # Layout
//! - `load`: from a file to a [`Config`], top down
//! - `node`, `set`: TOML as a tree that records where each value was written; `--set`, applied to that tree
//! - `reader`, `sections`, [`values`]: from the tree to the values, one function per section and one per kind of value
//! - `hooks`: checks and creates the hooks that the config names
//! - [`problem`], [`error`]: what can be wrong, where, and how it is reported

pub mod error;
mod hooks;
mod load;
mod node;
pub mod problem;
mod reader;
mod sections;
mod set;
pub mod values;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use hooks::parse_option;
pub use problem::{NameKind, Problem, Reason};

pub use crate::intercept::chain::NamedHook;
pub use crate::intercept::config::place::Place;
pub use crate::intercept::config::{EngineChoice, ErrorCodeFilter, HookConfig, InterceptConfig, TRUST};
pub use crate::machine::config::{BootConfig, DiskConfig, Kernel, Module, ProtocolChoice, VmConfig};
pub use crate::vm::config::{Config, ControlConfig};
