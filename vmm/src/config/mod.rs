//! The config file: what to boot, on which machine, and which hooks its faults go through.
//!
//! [`Config::load`] turns a TOML file and the command line's `--set` texts into a [`Config`], or into a [`ConfigError`]
//! that lists every error in them, each with its place. [`Config::create_hooks`] then creates the hooks of the VM's
//! chain. Nothing here is on the path of a fault.
//!
//! # Layout
//! - [`schema`]: the values of a parsed config
//! - [`defaults`]: defaults, and the limits of values
//! - `load`: from a file to a [`Config`], top down
//! - `node`, `set`: TOML as a tree that records where each value was written; `--set`, applied to that tree
//! - `reader`, `sections`, [`values`]: from the tree to the schema, one function per section and one per kind of value
//! - `hooks`: checks and creates the hooks that the config names
//! - [`place`], [`problem`], [`error`]: what can be wrong, where, and how it is reported

pub mod defaults;
pub mod error;
mod hooks;
mod load;
mod node;
pub mod place;
pub mod problem;
mod reader;
pub mod schema;
mod sections;
mod set;
pub mod values;

#[cfg(test)]
mod tests;

pub use crate::chain::NamedHook;
pub use error::ConfigError;
pub use hooks::parse_option;
pub use place::Place;
pub use problem::{NameKind, Problem, Reason};
pub use schema::{
    BootConfig, Config, ControlConfig, DiskConfig, EngineChoice, ErrorCodeFilter, HookConfig, InterceptConfig, Kernel,
    Module, ProtocolChoice, VmConfig,
};
