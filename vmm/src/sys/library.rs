//! From a symbol to the hook that it describes.

use std::ffi::c_void;
use std::ptr::NonNull;

use vector14_hook::abi::{Foreign, Mismatch};

/// The kind of hook that a loaded library's symbol `vector14_hook` describes.
///
/// # Errors
/// [`Mismatch`].
pub(crate) fn foreign(symbol: NonNull<c_void>) -> Result<Foreign, Mismatch> {
    // SAFETY:
    // 1. The library stays loaded, so what the symbol names stays where it is. The library's file was checked before:
    //    the symbol has at least the size of a descriptor.
    // 2. Whoever exports a descriptor with our magic number, version and sizes declares that its functions are what
    //    the header says. Nothing more can be known of foreign code.
    unsafe { Foreign::new(symbol.as_ptr().cast()) }
}
