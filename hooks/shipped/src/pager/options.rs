//! The options of `pager`.

use std::path::PathBuf;

use serde::Deserialize;
use vector14_hook::{Access, OptionDoc, Options, OptionsError, PAGE_SIZE, Va};

use super::store::{FileAccess, FileStore, Store};
use crate::address::{AddressRange, Number};

pub(super) const DOCS: &[OptionDoc] = &[
    OptionDoc { name: "start", value: "address", default: None, help: "first address of the range" },
    OptionDoc { name: "end", value: "address", default: None, help: "end of the range (exclusive)" },
    OptionDoc {
        name: "file",
        value: "path",
        default: Some("none: zeroes"),
        help: "file with the contents of the range, from its first byte on; at least as long as the range",
    },
    OptionDoc {
        name: "resident",
        value: "\"SIZE\"",
        default: Some("\"16M\""),
        help: "the most that is in memory at a time, from \"256K\" to \"1G\"",
    },
    OptionDoc { name: "readonly", value: "bool", default: Some("false"), help: "leave write faults to the guest" },
    OptionDoc { name: "execute", value: "bool", default: Some("false"), help: "whether code in it may be executed" },
    OptionDoc { name: "user", value: "bool", default: Some("true"), help: "whether user mode may access it" },
    OptionDoc {
        name: "tables",
        value: "bool",
        default: Some("false"),
        help: "create missing page tables instead of leaving the fault to the guest; not in Linux guests",
    },
    OptionDoc {
        name: "sync_at",
        value: "address",
        default: Some("none"),
        help: "a touch of this page writes back and unmaps the whole range, and has no other effect",
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    start: Number,
    end: Number,
    file: Option<PathBuf>,
    resident: Option<String>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    execute: bool,
    #[serde(default = "yes")]
    user: bool,
    #[serde(default)]
    tables: bool,
    sync_at: Option<Number>,
}

const fn yes() -> bool {
    true
}

/// The checked options.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) range: AddressRange,
    pub(super) file: Option<PathBuf>,
    /// The budget, in frames.
    pub(super) budget: u64,
    pub(super) access: Access,
    pub(super) tables: Tables,
    pub(super) sync_at: Option<Va>,
}

/// What to do if the guest has no last-level page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// Leave the fault to the guest.
    OfTheGuest,
    /// Create the tables; they stay with the guest.
    Made,
}

impl Settings {
    pub(super) fn parse(options: &Options) -> Result<Self, OptionsError> {
        let raw: Raw = options.parse()?;
        let range = AddressRange::of_pages(raw.start, raw.end)
            .map_err(|error| OptionsError::new(error.key(), error.to_string()))?;
        let mut access = Access::empty();
        access.set(Access::WRITE, !raw.readonly);
        access.set(Access::EXECUTE, raw.execute);
        access.set(Access::USER, raw.user);
        Ok(Self {
            range,
            file: raw.file.map(|file| options.path(&file)),
            budget: frames(raw.resident.as_deref().unwrap_or("16M"))?,
            access,
            tables: if raw.tables { Tables::Made } else { Tables::OfTheGuest },
            sync_at: raw.sync_at.map(|address| sync_page(address, range)).transpose()?,
        })
    }

    /// Opens the file, if there is one, without side effects.
    pub(super) fn open(&self) -> Result<Option<FileStore>, OptionsError> {
        let Some(path) = &self.file else { return Ok(None) };
        let writes = self.access.contains(Access::WRITE);
        let access = if writes { FileAccess::Write } else { FileAccess::Read };
        let opened = FileStore::open(path, self.range.pages(), access);
        opened.map(Some).map_err(|error| OptionsError::new("file", format!("file = {}: {error}", path.display())))
    }

    /// The store that holds the pages of the range.
    pub(super) fn store(&self) -> Result<Box<dyn Store>, OptionsError> {
        let no_room = |error| {
            let folder = std::env::temp_dir();
            OptionsError {
                key: None,
                message: format!("can't create a file for the pages in {}: {error}", folder.display()),
            }
        };
        match self.open()? {
            Some(file) => Ok(Box::new(file)),
            None => Ok(Box::new(FileStore::zeroes(self.range.pages()).map_err(no_room)?)),
        }
    }
}

/// Parses a size as a number of frames. The minimum gives every vCPU a frame to wait with, and some more to use.
fn frames(size: &str) -> Result<u64, OptionsError> {
    const LEAST: u64 = 256 << 10;
    const MOST: u64 = 1 << 30;
    let bytes = parse_size::Config::new().with_binary().parse_size(size).ok();
    let right = bytes.filter(|bytes| (LEAST..=MOST).contains(bytes) && bytes.is_multiple_of(PAGE_SIZE));
    let wrong = || format!("resident = \"{size}\": must be from \"256K\" to \"1G\", and a multiple of \"4K\"");
    Ok(right.ok_or_else(|| OptionsError::new("resident", wrong()))? / PAGE_SIZE)
}

fn sync_page(address: Number, range: AddressRange) -> Result<Va, OptionsError> {
    let Number(value) = address;
    let wrong = |why: &str| OptionsError::new("sync_at", format!("sync_at = {value:#x}: {why}"));
    let page = AddressRange::new(address, Number(value.saturating_add(1)))
        .map_err(|_| wrong("must be a canonical address"))?
        .start()
        .page();
    if range.contains(page) {
        return Err(wrong(&format!("must be outside of the range {range}")));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vector14_hook::mock::options;

    #[test]
    fn what_is_not_given_has_a_default() {
        let settings = Settings::parse(&options(json!({"start": 0x1000, "end": "0x5000"}))).unwrap();
        assert_eq!((settings.range.pages(), settings.budget, settings.sync_at), (4, 4096, None));
        assert_eq!((settings.access, settings.tables), (Access::WRITE | Access::USER, Tables::OfTheGuest));
        let more =
            json!({"start": 0, "end": 0x1000, "readonly": true, "execute": true, "user": false, "sync_at": 0x1234});
        let settings = Settings::parse(&options(more)).unwrap();
        assert_eq!((settings.access, settings.sync_at), (Access::EXECUTE, Some(Va(0x1000))));
    }

    #[test]
    fn bad_options_are_named() {
        for (bad, key, got) in [
            (json!({"start": 0x1000}), None, "end"),
            (json!({"start": 0x1001, "end": 0x3000}), Some("start"), "0x1001"),
            (json!({"start": 0, "end": 0x1000, "resident": "8K"}), Some("resident"), "8K"),
            (json!({"start": 0, "end": 0x1000, "resident": "2G"}), Some("resident"), "2G"),
            (json!({"start": 0, "end": 0x1000, "resident": "1000001"}), Some("resident"), "1000001"),
            (json!({"start": 0, "end": 0x1000, "resident": 16}), Some("resident"), "16"),
            (json!({"start": 0, "end": 0x1000, "sync_at": 0xfff}), Some("sync_at"), "0xfff"),
            (json!({"start": 0, "end": 0x1000, "sync_at": "0x0800_0000_0000_0000"}), Some("sync_at"), "canonical"),
            (json!({"start": 0, "end": 0x1000, "readonly": "yes"}), Some("readonly"), "yes"),
            (json!({"start": 0, "end": 0x1000, "pages": 1}), Some("pages"), "`resident`"),
        ] {
            let error = Settings::parse(&options(bad)).unwrap_err();
            assert_eq!(error.key.as_deref(), key, "{error}");
            assert!(error.to_string().contains(got), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let settings = Settings::parse(&options(json!({"start": 0, "end": 0x1000, "file": "missing"}))).unwrap();
        let error = settings.open().err().unwrap();
        assert_eq!(error.key.as_deref(), Some("file"));
        assert!(error.to_string().contains("/etc/v14/missing"), "{error}");
    }
}
