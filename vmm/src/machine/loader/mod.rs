//! Kernels: recognises and checks a file, and loads it into guest memory together with its boot information.
//!
//! Every error in a file is found here, before the first KVM_RUN, and is reported with the values at fault. No file
//! makes this code panic.
//!
//! # Layout
//! - `load`: from `[boot]` to a `Loaded`, top down
//! - `format`: what kind of kernel a file is
//! - `elf`, `notes`, `unused`: ELF kernels, their notes, and the parts of their code that nothing uses
//! - `bzimage`, `zero_page`: Linux's setup header, and the boot parameters of long-mode kernels
//! - `multiboot`: Multiboot's header and boot information
//! - `space`, `map`: which guest memory is taken, and the memory map that the guest gets
//! - `file`: access to the files; [`error`]: what can be wrong

mod bzimage;
mod elf;
pub(crate) mod error;
mod file;
mod format;
mod load;
mod map;
mod multiboot;
mod notes;
mod recognise;
mod space;
mod unused;
mod zero_page;

#[cfg(test)]
mod tests;

pub(crate) use self::error::LoadError;
pub(crate) use self::load::load;
