//! The state in which a kernel is entered: the first vCPU's registers, and the tables in low memory that they point to.
//!
//! The loader decides on an [`Entry`]; this module puts the corresponding state in place, before the first KVM_RUN.
//!
//! # Layout
//! - `entry`: the ways to enter a kernel
//! - `layout`: the layout of low memory
//! - `long_mode`: the Linux 64-bit boot protocol
//! - `protected_mode`: Multiboot's machine state
//! - `segment`: flat segments, in registers and in descriptor tables

mod entry;
pub(crate) mod layout;
mod long_mode;
mod protected_mode;
mod segment;

pub(crate) use self::entry::Entry;
