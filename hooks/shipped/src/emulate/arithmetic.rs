//! Results and flags of integer arithmetic (SDM vol. 1, 5.1.2, 5.1.4 and appendix A).

use iced_x86::Mnemonic;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// The size of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    bits: u32,
}

/// An operation on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    And,
    Or,
    Xor,
    /// As `Sub`, but only sets flags.
    Cmp,
    /// As `And`, but only sets flags.
    Test,
    /// As `Add`, but leaves CF unchanged.
    Inc,
    /// As `Sub`, but leaves CF unchanged.
    Dec,
}

impl Width {
    pub(super) fn of_bytes(bytes: usize) -> Option<Self> {
        matches!(bytes, 1 | 2 | 4 | 8).then(|| Self { bits: u32::try_from(bytes * 8).unwrap_or_default() })
    }

    pub(super) const fn bytes(self) -> usize {
        self.bits as usize / 8
    }

    /// Mask of the bits that belong to the operand.
    pub(super) const fn cut(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits))
    }

    pub(super) const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits;
        ((value << unused).cast_signed() >> unused).cast_unsigned()
    }

    const fn sign(self, value: u64) -> bool {
        value >> (self.bits - 1) & 1 != 0
    }
}

impl Arithmetic {
    pub(super) fn of(mnemonic: Mnemonic) -> Option<Self> {
        Some(match mnemonic {
            Mnemonic::Add => Self::Add,
            Mnemonic::Sub => Self::Sub,
            Mnemonic::And => Self::And,
            Mnemonic::Or => Self::Or,
            Mnemonic::Xor => Self::Xor,
            Mnemonic::Cmp => Self::Cmp,
            Mnemonic::Test => Self::Test,
            Mnemonic::Inc => Self::Inc,
            Mnemonic::Dec => Self::Dec,
            _ => return None,
        })
    }

    /// Returns the result, if the operation writes one, and sets flags in `rflags`. Clears AF for And, Or, Xor and
    /// Test, which leave it undefined.
    pub(super) fn run(self, width: Width, left: u64, right: u64, rflags: &mut u64) -> Option<u64> {
        let (left, right) = (width.cut(left), width.cut(right));
        let (result, carry, overflow) = match self {
            Self::Add | Self::Inc => {
                let sum = width.cut(left.wrapping_add(right));
                (sum, sum < left, width.sign((left ^ sum) & (right ^ sum)))
            }
            Self::Sub | Self::Cmp | Self::Dec => {
                let difference = width.cut(left.wrapping_sub(right));
                (difference, left < right, width.sign((left ^ right) & (left ^ difference)))
            }
            Self::And | Self::Test => (left & right, false, false),
            Self::Or => (left | right, false, false),
            Self::Xor => (left ^ right, false, false),
        };
        let adjust = match self {
            Self::Add | Self::Inc | Self::Sub | Self::Cmp | Self::Dec => (left ^ right ^ result) & 0x10 != 0,
            Self::And | Self::Test | Self::Or | Self::Xor => false,
        };
        let mut set = |flag: u64, on: bool| *rflags = (*rflags & !flag) | if on { flag } else { 0 };
        if !matches!(self, Self::Inc | Self::Dec) {
            set(CF, carry);
        }
        set(PF, (result & 0xff).count_ones().is_multiple_of(2));
        set(AF, adjust);
        set(ZF, result == 0);
        set(SF, width.sign(result));
        set(OF, overflow);
        (!matches!(self, Self::Cmp | Self::Test)).then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(arithmetic: Arithmetic, bytes: usize, left: u64, right: u64) -> (Option<u64>, u64) {
        let mut rflags = CF;
        let result = arithmetic.run(Width::of_bytes(bytes).unwrap(), left, right, &mut rflags);
        (result, rflags)
    }

    #[test]
    fn results_and_flags_are_those_of_the_cpu() {
        use Arithmetic::{Add, And, Cmp, Dec, Inc, Sub, Test, Xor};
        for (arithmetic, bytes, left, right, result, expected) in [
            (Add, 1, 0xff, 1, Some(0), CF | PF | AF | ZF),
            (Add, 1, 0x7f, 1, Some(0x80), AF | SF | OF),
            (Add, 8, u64::MAX, 1, Some(0), CF | PF | AF | ZF),
            (Add, 4, 0xffff_ffff, 2, Some(1), CF | AF),
            (Sub, 1, 0x80, 1, Some(0x7f), AF | OF),
            (Sub, 2, 0, 1, Some(0xffff), CF | PF | AF | SF),
            (Cmp, 8, 5, 5, None, PF | ZF),
            (Cmp, 8, 1 << 63, 1, None, PF | AF | OF),
            (Test, 4, 0xffff_ffff_8000_0000, 0x8000_0000, None, PF | SF),
            (And, 1, 0xf0, 0x0f, Some(0), PF | ZF),
            (Xor, 8, 1, 3, Some(2), 0),
            (Inc, 1, 0xff, 1, Some(0), CF | PF | AF | ZF),
            (Dec, 1, 0, 1, Some(0xff), CF | PF | AF | SF),
        ] {
            assert_eq!(
                flags(arithmetic, bytes, left, right),
                (result, expected),
                "{arithmetic:?} {left:#x} {right:#x}"
            );
        }
    }
}
