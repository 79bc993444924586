//! What vector14's host side and its tiny guest kernel agree on.
//!
//! # Layout
//! - [`protected_mode`]: what the multiboot kernel faults on outside of long mode
//! - [`port`]: the I/O ports that the guest writes to
//! - [`window`]: the ranges of virtual addresses that its scenarios fault in, and what they leave there
//! - [`paged`]: what one of them does, where the host has to come to the same result
//! - [`scenario`]: its scenarios, their parameters, and how each of them ends
#![no_std]

pub mod paged;
pub mod port;
pub mod protected_mode;
pub mod scenario;
pub mod window;

pub use port::{COM1, EXIT_PORT, MARK_PORT, NOP_PORT};
pub use scenario::{Ending, Host, Parameter, SCENARIOS, Scenario};
