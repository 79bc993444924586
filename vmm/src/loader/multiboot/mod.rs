//! Multiboot 1 (Multiboot Specification 0.6.96): the header by which a kernel is known, where the kernel goes, and the
//! boot information that it is given.

mod header;
pub(super) mod info;
mod place;

pub use self::header::{Addresses, HeaderError};
pub(super) use self::header::{Search, search};
pub(super) use self::place::place;
