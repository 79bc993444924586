//! The tiny guest kernel, ready to boot.
//!
//! It is a freestanding crate in `tiny/`, which the build script of this one compiles and links. What it can be asked
//! to do is in [`abi::SCENARIOS`]; a scenario is chosen on its command line, as `scenario=demand pages=1000`.

pub use vector14_guest_abi as abi;

/// The kernel: an x86-64 ELF executable that is entered by the Linux 64-bit boot protocol.
pub static TINY: &[u8] = include_bytes!(env!("VECTOR14_TINY"));
