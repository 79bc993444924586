//! The state that a kernel is entered in: the first vCPU's registers, and the tables in low memory that they point at.
//!
//! The loader decides on an [`Entry`]; what it stands for is put in place here, before the first KVM_RUN.
//!
//! # Layout
//! - `entry`: the ways to be entered
//! - `layout`: what lies where in low memory
//! - `long_mode`: the Linux 64-bit boot protocol
//! - `protected_mode`: Multiboot's machine state
//! - `segment`: flat segments, as registers and as descriptors

mod entry;
pub(crate) mod layout;
mod long_mode;
mod protected_mode;
mod segment;

pub use self::entry::Entry;
