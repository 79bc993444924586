//! The boot information (3.3): memory, command line, modules, memory map and the loader's name, in one piece of low memory.

use std::ops::Range;

use vector14_hook::Pa;

use crate::boot::layout::{CMDLINE_LIMIT, EBDA, HIGH_MEMORY, MULTIBOOT_INFO};
use crate::loader::error::LoadReason;
use crate::loader::map::{Kind, memory_map};
use crate::memory::Memory;

/// Size of the structure, with the fields for video that are left empty.
const SIZE: usize = 116;

/// Flags: which fields are valid.
const MEMORY: u32 = 1 << 0;
const CMDLINE: u32 = 1 << 2;
const MODULES: u32 = 1 << 3;
const MEMORY_MAP: u32 = 1 << 6;
const LOADER_NAME: u32 = 1 << 9;

/// Writes the boot information of a kernel called `name`, to [`MULTIBOOT_INFO`]. Modules are in memory already: each is
/// its range and its string.
pub(in crate::loader) fn write(
    name: &str,
    cmdline: &str,
    modules: &[(Range<u64>, &str)],
    memory: &Memory,
) -> Result<(), LoadReason> {
    if cmdline.len() as u64 > CMDLINE_LIMIT {
        return Err(LoadReason::CmdlineTooLong { length: cmdline.len(), limit: CMDLINE_LIMIT });
    }
    let mut info = Info(vec![0; SIZE]);
    info.set(0, MEMORY | CMDLINE | MODULES | MEMORY_MAP | LOADER_NAME);
    let map = memory_map(memory);
    let high = map.iter().find(|(range, kind)| range.start == HIGH_MEMORY && *kind == Kind::Ram);
    info.set(4, low(EBDA >> 10));
    info.set(8, high.map_or(0, |(range, _)| low((range.end - range.start) >> 10)));
    let cmdline = if cmdline.is_empty() { name.to_owned() } else { format!("{name} {cmdline}") };
    let at = info.push_text(&cmdline);
    info.set(16, at);
    let entries: Vec<[u32; 4]> =
        modules.iter().map(|(range, text)| [low(range.start), low(range.end), info.push_text(text), 0]).collect();
    info.align();
    let at = info.address();
    info.push_words(entries.as_flattened());
    info.set(20, low(modules.len() as u64));
    info.set(24, at);
    let at = info.address();
    for (range, kind) in &map {
        // The size of the entry, without the size itself.
        info.push_words(&[20]);
        info.0.extend(range.start.to_le_bytes());
        info.0.extend((range.end - range.start).to_le_bytes());
        info.push_words(&[*kind as u32]);
    }
    info.set(44, info.address() - at);
    info.set(48, at);
    let at = info.push_text("vector14");
    info.set(64, at);
    let limit = MULTIBOOT_INFO.end - MULTIBOOT_INFO.start;
    if info.0.len() as u64 > limit {
        return Err(LoadReason::InfoTooLarge { size: info.0.len(), limit });
    }
    Ok(memory.write(Pa(MULTIBOOT_INFO.start), &info.0)?)
}

/// The boot information and what it points at, as bytes.
struct Info(Vec<u8>);

impl Info {
    /// Sets the field at an offset of the structure.
    fn set(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Where the next byte goes.
    fn address(&self) -> u32 {
        low(MULTIBOOT_INFO.start + self.0.len() as u64)
    }

    fn push_text(&mut self, text: &str) -> u32 {
        let address = self.address();
        self.0.extend(text.as_bytes());
        self.0.push(0);
        address
    }

    fn push_words(&mut self, words: &[u32]) {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Everything that is told of here lies below 4 GiB, or is a size in KiB of what does.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
