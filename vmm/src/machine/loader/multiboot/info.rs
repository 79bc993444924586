//! The boot information (3.3): memory, command line, modules, memory map and the loader's name, in one range of low
//! memory.

use std::ops::Range;

use vector14_hook::Pa;

use crate::machine::boot::layout::{CMDLINE_LIMIT, EBDA, HIGH_MEMORY, MULTIBOOT_INFO};
use crate::machine::loader::error::LoadReason;
use crate::machine::loader::map::{Kind, memory_map};
use crate::machine::loader::space::Space;

/// Size of the structure, including the video fields, which are left empty.
const SIZE: usize = 116;

/// Flag: the memory fields are valid.
const MEMORY: u32 = 1 << 0;
const CMDLINE: u32 = 1 << 2;
const MODULES: u32 = 1 << 3;
const MEMORY_MAP: u32 = 1 << 6;
const LOADER_NAME: u32 = 1 << 9;

/// Writes the boot information of a kernel called `name` to a free range in [`MULTIBOOT_INFO`], and returns its
/// address. Modules are in memory already; each is given as its range and its string.
pub(in crate::machine::loader) fn write(
    name: &str,
    cmdline: &str,
    modules: &[(Range<u64>, &str)],
    space: &mut Space<'_>,
) -> Result<Pa, LoadReason> {
    if cmdline.len() as u64 > CMDLINE_LIMIT {
        return Err(LoadReason::CmdlineTooLong { length: cmdline.len(), limit: CMDLINE_LIMIT });
    }
    let cmdline = if cmdline.is_empty() { name.to_owned() } else { format!("{name} {cmdline}") };
    let map = memory_map(space.memory());
    let info_at = |start| Info::new(start, &cmdline, modules, &map).bytes;
    // The size does not depend on the address.
    let size = info_at(MULTIBOOT_INFO.start).len();
    let place = space.allocate_low(size as u64, MULTIBOOT_INFO);
    let start = place.map_err(|_| LoadReason::InfoTooLarge { size, within: MULTIBOOT_INFO })?.start;
    space.memory().write(Pa(start), &info_at(start))?;
    Ok(Pa(start))
}

/// The boot information and everything that it points to.
struct Info {
    /// Address at which the boot information is written.
    start: u64,
    bytes: Vec<u8>,
}

impl Info {
    fn new(start: u64, cmdline: &str, modules: &[(Range<u64>, &str)], map: &[(Range<u64>, Kind)]) -> Self {
        let mut info = Self { start, bytes: vec![0; SIZE] };
        info.set(0, MEMORY | CMDLINE | MODULES | MEMORY_MAP | LOADER_NAME);
        let high = map.iter().find(|(range, kind)| range.start == HIGH_MEMORY && *kind == Kind::Ram);
        info.set(4, low(EBDA >> 10));
        info.set(8, high.map_or(0, |(range, _)| low((range.end - range.start) >> 10)));
        let at = info.push_text(cmdline);
        info.set(16, at);
        let entries: Vec<[u32; 4]> =
            modules.iter().map(|(range, text)| [low(range.start), low(range.end), info.push_text(text), 0]).collect();
        info.align();
        let at = info.address();
        info.push_words(entries.as_flattened());
        info.set(20, low(modules.len() as u64));
        info.set(24, at);
        let at = info.address();
        for (range, kind) in map {
            // The size of the entry, without the size field itself.
            info.push_words(&[20]);
            info.bytes.extend(range.start.to_le_bytes());
            info.bytes.extend((range.end - range.start).to_le_bytes());
            info.push_words(&[*kind as u32]);
        }
        info.set(44, info.address() - at);
        info.set(48, at);
        let at = info.push_text("vector14");
        info.set(64, at);
        info
    }

    /// Sets the field at an offset in the structure.
    fn set(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Address of the next byte.
    fn address(&self) -> u32 {
        low(self.start + self.bytes.len() as u64)
    }

    fn push_text(&mut self, text: &str) -> u32 {
        let address = self.address();
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        address
    }

    fn push_words(&mut self, words: &[u32]) {
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A value as 32 bits: an address below 4 GiB, or a size in KiB of memory below it.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
