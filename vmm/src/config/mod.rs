//! The config file: what to boot, on what machine, and which hooks its faults go through.
//!
//! [`Config::load`] turns a TOML file and the command line's `--set` texts into a [`Config`], or into a [`ConfigError`]
//! that lists everything that is wrong with them, each error with its place. [`Config::create_hooks`] then makes the
//! hooks that the VM's chain consists of. Nothing here is on the path of a fault.
//!
//! # Layout
//! - [`schema`]: the values that a config comes to
//! - [`defaults`]: what holds where the file says nothing, and the limits of what it may say
//! - `load`: from a file to a [`Config`], top down
//! - `node`, `set`: TOML as a tree that knows where each value was written; `--set` laid over it
//! - `reader`, `sections`, [`values`]: from that tree to the schema, one function a section, one a kind of value
//! - `hooks`: what needs the list of hooks that there are
//! - [`place`], [`problem`], [`error`]: what can be wrong, where, and how it is told

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
pub use place::Place;
pub use problem::{NameKind, Problem, Reason};
pub use schema::{
    BootConfig, Config, ControlConfig, DiskConfig, EngineChoice, ErrorCodeFilter, HookConfig, InterceptConfig, Kernel,
    Module, ProtocolChoice, VmConfig,
};
