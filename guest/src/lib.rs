//! The tiny guest kernel, ready to boot.
