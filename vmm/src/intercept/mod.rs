//! The interception: how faults reach the host, and the hooks that decide about them.
//!
//! The path of a fault, which brings these together, is in `vm/run.rs`.
//!
//! # Layout
//! - [`engine`]: how faults reach the host, and how a verdict is applied
//! - [`chain`], [`progress`]: the hooks in their order; the loop detector
//! - [`guest`]: the guest as hooks see it
//! - [`library`]: hooks loaded from shared libraries
//! - [`counts`], [`trust`], [`config`]: what is counted; how far a hook is trusted; what a config says of it all

pub mod chain;
pub(crate) mod config;
pub(crate) mod counts;
pub(crate) mod engine;
pub(crate) mod guest;
pub mod library;
pub(crate) mod progress;
pub(crate) mod trust;
