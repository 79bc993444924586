//! From a symbol to the hook that it describes.

use std::ffi::c_void;
use std::ptr::NonNull;

use vector14_hook::abi::{Foreign, Mismatch};

/// The kind of hook whose descriptor is the symbol `vector14_hook` of a library that is loaded.
///
/// # Errors
/// [`Mismatch`].
pub(crate) fn foreign(symbol: NonNull<c_void>) -> Result<Foreign, Mismatch> {
    // SAFETY:
    // 1. The library stays loaded, so what the symbol names stays where it is. The library's file was looked at before: the
    //    symbol has at least the size of a descriptor.
    // 2. Whoever exports a descriptor of our magic number, version and sizes says by it that its functions are what the
    //    header says. There is no more that could be known of foreign code.
    unsafe { Foreign::new(symbol.as_ptr().cast()) }
}
