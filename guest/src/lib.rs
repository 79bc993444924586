//! The tiny guest kernel, ready to boot.
pub const TINY: &[u8] = &[];
