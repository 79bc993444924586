//! The options of `count`.

use serde::Deserialize;
use vector14_hook::{Options, OptionsError};

use crate::address::{AddressRange, Number};

/// Maximum number of ranges. Each fault searches them linearly, so more would slow the fault path.
const MAX_RANGES: usize = 64;
const MAX_TOP: u128 = 1000;
const DEFAULT_TOP: usize = 20;

/// The checked options.
pub(super) struct Settings {
    /// Maximum rows in a table of places.
    pub(super) top: usize,
    /// The ranges to count by; if empty, count by region.
    pub(super) ranges: Vec<NamedRange>,
}

/// A named range.
pub(super) struct NamedRange {
    pub(super) name: String,
    pub(super) addresses: AddressRange,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    top: Option<Number>,
    #[serde(default)]
    ranges: Vec<RawRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    name: String,
    start: Number,
    end: Number,
}

impl Settings {
    pub(super) fn new(options: &Options) -> Result<Self, OptionsError> {
        let RawSettings { top, ranges } = options.parse()?;
        if ranges.len() > MAX_RANGES {
            let message = format!("{} ranges: there can be at most {MAX_RANGES}", ranges.len());
            return Err(OptionsError::new("ranges", message));
        }
        let mut named = Vec::<NamedRange>::new();
        for (index, range) in ranges.into_iter().enumerate() {
            let wrong = |message| OptionsError::new("ranges", format!("ranges[{index}]: {message}"));
            if named.iter().any(|earlier| earlier.name == range.name) {
                return Err(wrong(format!("name = {:?}: another range has this name", range.name)));
            }
            let addresses = AddressRange::new(range.start, range.end).map_err(|error| wrong(error.to_string()))?;
            named.push(NamedRange { name: range.name, addresses });
        }
        Ok(Self { top: top.map_or(Ok(DEFAULT_TOP), check_top)?, ranges: named })
    }
}

fn check_top(Number(top): Number) -> Result<usize, OptionsError> {
    let allowed = usize::try_from(top).ok().filter(|_| (1..=MAX_TOP).contains(&top));
    allowed.ok_or_else(|| OptionsError::new("top", format!("top = {top}: must be from 1 to {MAX_TOP}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vector14_hook::mock::options;

    fn settings(value: Value) -> Result<Settings, OptionsError> {
        Settings::new(&options(value))
    }

    #[test]
    fn nothing_is_required() {
        let settings = settings(json!({})).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((settings.top, settings.ranges.len()), (DEFAULT_TOP, 0));
    }

    #[test]
    fn bad_options_are_named() {
        let range = |name: &str| json!({"name": name, "start": "0x1000", "end": "0x2000"});
        for (bad, key, got) in [
            (json!({"top": 0}), "top", "top = 0: must be from 1 to 1000"),
            (json!({"top": 1001}), "top", "1001"),
            (json!({"top": "many"}), "top", "many"),
            (json!({"tops": 1}), "tops", "`ranges`"),
            (json!({"ranges": [{"name": "a", "start": 1}]}), "ranges", "ranges[0]: missing field `end`"),
            (json!({"ranges": [{"name": "a", "start": "x", "end": 1}]}), "ranges", "ranges[0].start: "),
            (json!({"ranges": [range("a"), {"name": "b", "start": 9, "end": 8}]}), "ranges", "ranges[1]: start = 0x9"),
            (json!({"ranges": [range("a"), range("a")]}), "ranges", "ranges[1]: name = \"a\""),
            (json!({"ranges": vec![range("a"); 65]}), "ranges", "65"),
        ] {
            let error = settings(bad).err().unwrap();
            assert_eq!(error.key.as_deref(), Some(key), "{error}");
            assert!(error.message.contains(got), "{error}");
        }
    }
}
