//! Kernels: a file is recognised, checked, and put into guest memory with what it wants to be told.
//!
//! Everything that can be wrong with a file is found here, before the first KVM_RUN, and named with its values: no file
//! makes this panic.
//!
//! # Layout
//! - `load`: from `[boot]` to a [`Loaded`], top down
//! - `format`: what kind of kernel a file is
//! - `elf`, `notes`, `unused`: ELF kernels, what their notes say, and what of their code belongs to nobody
//! - `bzimage`, `zero_page`: Linux's setup header, and the boot parameters that long-mode kernels are given
//! - `multiboot`: Multiboot's header and boot information
//! - `space`, `map`: what of guest memory is taken, and what the guest is told of it
//! - `file`: the files themselves; [`error`]: what can be wrong

mod bzimage;
mod elf;
pub mod error;
mod file;
mod format;
mod load;
mod map;
mod multiboot;
mod notes;
mod space;
mod unused;
mod zero_page;

#[cfg(test)]
mod tests;

pub use self::bzimage::BzImageError;
pub use self::error::{LoadError, LoadReason, Part};
pub use self::format::Format;
pub use self::load::{Loaded, load};
pub use self::multiboot::{Addresses, HeaderError};
