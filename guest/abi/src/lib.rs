//! The interface between vector14's host side and its guest kernels.
//!
//! # Layout
//! - [`protected_mode`]: the pages on which the multiboot kernel faults outside long mode
//! - [`port`]: the I/O ports that the guest writes to
//! - [`window`]: the ranges of virtual addresses in which scenarios fault, and their contents
//! - [`paged`]: the parts of the scenario `paged` that the host has to reproduce
//! - [`scenario`]: the scenarios, their parameters, and how each ends
#![no_std]

pub mod paged;
pub mod port;
pub mod protected_mode;
pub mod scenario;
pub mod window;

pub use port::{COM1, EXIT_PORT, MARK_PORT, NOP_PORT};
pub use scenario::{Ending, Host, Parameter, SCENARIOS, Scenario};
