//! Multiboot 1 (Multiboot Specification 0.6.96): the header that identifies a kernel, where the kernel is loaded, and
//! the boot information that it receives.

mod header;
pub(super) mod info;
mod place;

pub(crate) use self::header::HeaderError;
pub(super) use self::header::{Search, search};
pub(super) use self::place::place;
