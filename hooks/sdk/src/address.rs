//! Address types: one type per kind of address, so that they can't be confused.

use std::fmt;

/// Size of the smallest page, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// The frame's address bits in CR3 and in an 8-byte page-table entry: bits 51:12.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The first byte of the 4 KiB page that holds this address.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Offset inside the 4 KiB page, in bytes.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// This address plus `bytes`; wraps at 2^64, as CPU arithmetic does.
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A guest-virtual (linear) address.
    Va
}
impl Va {
    /// Whether an address can be translated by 4 or 5 `levels` of page tables: all bits above the translated ones are
    /// equal to the highest translated one (SDM vol. 1, 3.3.7.1).
    #[must_use]
    #[inline]
    pub const fn is_canonical(self, levels: u8) -> bool {
        let unused = 64 - (12 + 9 * levels as u32);
        ((self.0 << unused).cast_signed() >> unused).cast_unsigned() == self.0
    }
}

address! {
    /// A guest-physical address.
    Pa
}

/// A CR3 value: the root of a guest's page tables, with its PCID and cache bits (SDM vol. 3A, 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cr3(pub u64);

impl Cr3 {
    /// Guest-physical address of the top-level table: bits 51:12.
    #[must_use]
    pub const fn root(self) -> Pa {
        Pa(self.0 & FRAME)
    }
}

impl fmt::Display for Cr3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_offset_split_an_address() {
        let va = Va(0x1234_5678);
        assert_eq!(va.page(), Va(0x1234_5000));
        assert_eq!(va.page_offset(), 0x678);
        assert_eq!(va.page().offset(va.page_offset()), va);
    }

    #[test]
    fn the_highest_translated_bit_repeats_in_a_canonical_address() {
        for (address, levels_4, levels_5) in [
            (0x0000_7fff_ffff_ffff, true, true),
            (0x0000_8000_0000_0000, false, true),
            (0x00ff_ffff_ffff_ffff, false, true),
            (0x0100_0000_0000_0000, false, false),
            (0x8000_0000_0000_0000, false, false),
            (0xff00_0000_0000_0000, false, true),
            (0xffff_8000_0000_0000, true, true),
        ] {
            let address = Va(address);
            assert_eq!((address.is_canonical(4), address.is_canonical(5)), (levels_4, levels_5), "{address}");
        }
    }

    #[test]
    fn cr3_root_drops_pcid_and_no_flush_bit() {
        assert_eq!(Cr3(0x8000_0000_0123_4fff).root(), Pa(0x0123_4000));
    }
}
