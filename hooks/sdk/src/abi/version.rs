//! Checks that a descriptor has our version of the interface. The fields checked are in the same place in every
//! version.

use std::ptr;

use super::types;
use super::types::{Descriptor, MAGIC, Prefix, Sizes, Text, VERSION};

/// Why a descriptor is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The descriptor does not begin with the magic number.
    #[error("`vector14_hook` is not a descriptor: it begins with {0:#x} instead of {MAGIC:#x}")]
    Magic(u64),
    /// The descriptor has another version of the interface.
    #[error("it is made for version {0} of the hook interface, and this vector14 has version {VERSION}")]
    Version(u32),
    /// The library was built with another size of a struct.
    #[error(
        "it is made for a hook interface with another layout: its `vector14_{name}` has {found} bytes, ours has {expected}"
    )]
    Size {
        /// The struct's name.
        name: &'static str,
        /// The size in the library, in bytes.
        found: u32,
        /// The size in this program, in bytes.
        expected: u32,
    },
    /// A text in the descriptor is missing or not UTF-8.
    #[error("the {0} in `vector14_hook` is not UTF-8 text")]
    Text(&'static str),
    /// The descriptor has no `on_fault`.
    #[error("`vector14_hook` has no `on_fault`")]
    NoOnFault,
}

impl Prefix {
    /// Those of this version of the interface.
    pub const OURS: Self = Self { magic: MAGIC, version: VERSION, sizes: Sizes::OURS };
    /// The size of a prefix, in bytes.
    pub const LENGTH: usize = size_of::<Self>();

    /// Reads a prefix from the bytes of a library's file.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        // SAFETY: any bytes are a prefix: it consists of integers without padding. The read needs no alignment.
        unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) }
    }

    /// Checks that a descriptor with this prefix has our version of the interface.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn check(&self) -> Result<(), Mismatch> {
        if self.magic != MAGIC {
            return Err(Mismatch::Magic(self.magic));
        }
        if self.version != VERSION {
            return Err(Mismatch::Version(self.version));
        }
        let mut sizes = self.sizes.named().into_iter().zip(Sizes::OURS.named());
        match sizes.find(|(found, expected)| found != expected) {
            Some(((name, found), (_, expected))) => Err(Mismatch::Size { name, found, expected }),
            None => Ok(()),
        }
    }
}

/// Declares one size per struct, under the struct's name.
macro_rules! sizes {
    ($($field:ident: $of:ty,)*) => {
        impl Sizes {
            /// Those of this version of the interface.
            pub const OURS: Self = Self { $($field: small(size_of::<$of>()),)* };

            fn named(&self) -> [(&'static str, u32); size_of::<Self>() / size_of::<u32>()] {
                [$((stringify!($field), self.$field),)*]
            }
        }
    };
}

sizes! {
    descriptor: Descriptor,
    text: Text,
    sink: types::Sink,
    fault: types::Fault,
    registers: crate::Registers,
    verdict: types::Verdict,
    guest_result: types::GuestResult,
    translation: types::Translation,
    mapping: types::Mapping,
    table_entry: types::TableEntry,
    walk: types::Walk,
    code: types::Code,
    system_registers: types::SystemRegisters,
    guest: types::Guest,
    guest_calls: types::GuestCalls,
    options: types::Options,
    options_error: types::OptionsError,
    option_doc: types::OptionDoc,
}

#[expect(clippy::cast_possible_truncation, reason = "no struct of ours has 4 GiB")]
const fn small(size: usize) -> u32 {
    size as u32
}
