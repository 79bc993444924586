//! Addresses and address ranges in hook options.

use std::fmt;
use std::num::IntErrorKind;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use vector14_hook::{PAGE_SIZE, Va};

/// A number in an option: an integer, or a string such as `"0xffff_8000_0000_0000"` for numbers too large for TOML.
///
/// It is wider than an address, so that the end of a range can be 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u128);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer of 0 or more, or a string such as \"0x10000000\"")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        let number = value.try_into().map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))?;
        Ok(Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        parse_number(text).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Parses `0x` and hexadecimal digits, or decimal digits, with `_` between digits. A number that does not fit becomes
/// the largest that does, and is later refused as too large.
fn parse_number(text: &str) -> Option<u128> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    match u128::from_str_radix(&digits.replace('_', ""), radix) {
        Ok(number) => Some(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u128::MAX),
        Err(_) => None,
    }
}

/// Virtual addresses from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    start: u64,
    /// The last address in the range. (An `end` of 2^64 does not fit into an address.)
    last: u64,
}

/// Why two numbers do not make an address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeError {
    #[error("start = {start:#x}: must be below end, which is {end:#x}")]
    Empty { start: u128, end: u128 },
    #[error("{key} = {value:#x}: is not a canonical address; none lie from 0x100000000000000 up to 0xff00000000000000")]
    NotCanonical { key: &'static str, value: u128 },
    #[error("end = {end:#x}: must be in the same half of the address space as start, which is {start:#x}")]
    BothHalves { start: u128, end: u128 },
    #[error("{key} = {value:#x}: must be a multiple of {PAGE_SIZE:#x}")]
    Unaligned { key: &'static str, value: u128 },
}

impl RangeError {
    /// The option that is wrong.
    pub(crate) const fn key(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "start",
            Self::BothHalves { .. } => "end",
            Self::NotCanonical { key, .. } | Self::Unaligned { key, .. } => key,
        }
    }
}

impl AddressRange {
    /// The range from `start` up to `end`. Both ends must be canonical in 5-level paging (SDM vol. 1, 3.3.7.1),
    /// and in the same half of the address space.
    pub(crate) fn new(Number(start): Number, Number(end): Number) -> Result<Self, RangeError> {
        if start >= end {
            return Err(RangeError::Empty { start, end });
        }
        let first = canonical(start).ok_or(RangeError::NotCanonical { key: "start", value: start })?;
        let last = canonical(end - 1).ok_or(RangeError::NotCanonical { key: "end", value: end })?;
        if (first ^ last) >> 63 != 0 {
            return Err(RangeError::BothHalves { start, end });
        }
        Ok(Self { start: first, last })
    }

    /// The range from `start` up to `end`, which must be multiples of 4 KiB.
    pub(crate) fn of_pages(start: Number, end: Number) -> Result<Self, RangeError> {
        for (key, Number(value)) in [("start", start), ("end", end)] {
            if !value.is_multiple_of(PAGE_SIZE.into()) {
                return Err(RangeError::Unaligned { key, value });
            }
        }
        Self::new(start, end)
    }

    /// The first address of the range.
    pub(crate) const fn start(self) -> Va {
        Va(self.start)
    }

    /// The last address of the range.
    pub(crate) const fn last(self) -> Va {
        Va(self.last)
    }

    /// Number of 4 KiB pages that the range touches.
    pub(crate) const fn pages(self) -> u64 {
        self.last / PAGE_SIZE - self.start / PAGE_SIZE + 1
    }

    /// Whether `address` lies in the range.
    pub(crate) const fn contains(self, address: Va) -> bool {
        self.start <= address.0 && address.0 <= self.last
    }
}

/// Shown as `0x1000..0x3000`; the end is exclusive, as in Rust.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, u128::from(self.last) + 1)
    }
}

/// `value` as an address, if it is canonical in 5-level paging.
fn canonical(value: u128) -> Option<u64> {
    u64::try_from(value).ok().filter(|address| Va(*address).is_canonical(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn number(value: Value) -> Result<u128, String> {
        serde_json::from_value(value).map(|Number(number)| number).map_err(|error| error.to_string())
    }

    fn range(start: u128, end: u128) -> Result<AddressRange, RangeError> {
        AddressRange::of_pages(Number(start), Number(end))
    }

    #[test]
    fn numbers_are_integers_or_strings() {
        for (value, expected) in [
            (json!(4096), 4096),
            (json!("4096"), 4096),
            (json!("0x1000"), 0x1000),
            (json!("0xffff_8000_0000_0000"), 0xffff_8000_0000_0000),
            (json!("0x10000000000000000"), 1 << 64),
        ] {
            assert_eq!(number(value), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_number_is_named() {
        for value in
            [json!(-1), json!(1.5), json!("-1"), json!("+1"), json!("0x"), json!("0x_"), json!("64K"), json!(true)]
        {
            let got = value.to_string();
            let error = number(value).unwrap_err();
            assert!(error.contains(&got) && error.contains("0x10000000"), "{error}");
        }
    }

    #[test]
    fn a_range_has_its_start_and_not_its_end() {
        let range = range(0x1000, 0x3000).unwrap();
        let inside = [0xfff, 0x1000, 0x2fff, 0x3000].map(|address| range.contains(Va(address)));
        assert_eq!(inside, [false, true, true, false]);
        assert_eq!(range.to_string(), "0x1000..0x3000");
    }

    #[test]
    fn a_range_can_reach_the_last_page() {
        let range = range(0xffff_ffff_ffff_f000, 1 << 64).unwrap();
        assert!(range.contains(Va(u64::MAX)));
        assert_eq!(range.to_string(), "0xfffffffffffff000..0x10000000000000000");
    }

    #[test]
    fn a_bad_range_names_the_key_and_the_value() {
        for (start, end, key, value) in [
            (0x3000, 0x3000, "start", "0x3000"),
            (0x1001, 0x3000, "start", "0x1001"),
            (0x1000, 0x3001, "end", "0x3001"),
            (1 << 56, 1 << 57, "start", "0x100000000000000"),
            (0x1000, 1 << 57, "end", "0x200000000000000"),
            (0x1000, !0xfff, "end", "0xfffffffffffffffffffffffffffff000"),
            (0x1000, 1 << 64, "end", "0x10000000000000000"),
        ] {
            let error = range(start, end).unwrap_err();
            assert_eq!(error.key(), key);
            assert!(error.to_string().contains(value), "{error}");
        }
    }
}
