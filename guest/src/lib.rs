//! The guest kernels, ready to boot.
//!
//! They are freestanding crates in `tiny/` and `multiboot/`, which the build script of this one compiles and links.
//! What the tiny guest can be asked to do is in [`abi::SCENARIOS`]; a scenario is chosen on its command line, as
//! `scenario=demand pages=1000`.

pub use vector14_guest_abi as abi;

/// The tiny guest: an x86-64 ELF executable that is entered by the Linux 64-bit boot protocol.
pub static TINY: &[u8] = include_bytes!(env!("VECTOR14_TINY"));

/// A kernel that is entered as the Multiboot Specification defines. It prints its boot information, and takes page
/// faults.
pub static MULTIBOOT: &[u8] = include_bytes!(env!("VECTOR14_MULTIBOOT"));
