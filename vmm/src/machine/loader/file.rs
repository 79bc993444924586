//! Access to the files that `[boot]` names.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use super::error::LoadReason;
use crate::machine::memory::Memory;

/// Largest kernel file, in bytes. Debug information is not loaded, so a file may be larger than guest memory.
const KERNEL_LIMIT: u64 = 2 << 30;

/// Reads a kernel's file completely.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadReason> {
    let (file, size) = open(path)?;
    if size > KERNEL_LIMIT {
        return Err(LoadReason::HugeFile { size, limit: KERNEL_LIMIT });
    }
    let mut image = Vec::new();
    file.take(KERNEL_LIMIT).read_to_end(&mut image).map_err(LoadReason::Unreadable)?;
    Ok(image)
}

/// Opens a file that is not empty, and returns its size in bytes.
pub(super) fn open(path: &Path) -> Result<(File, u64), LoadReason> {
    // Checks the type first: opening a pipe would block.
    let metadata = std::fs::metadata(path).map_err(LoadReason::Unreadable)?;
    if !metadata.is_file() {
        return Err(LoadReason::NotAFile);
    }
    if metadata.len() == 0 {
        return Err(LoadReason::Empty);
    }
    let file = File::open(path).map_err(LoadReason::Unreadable)?;
    Ok((file, metadata.len()))
}

/// Fills `range` of guest memory from `file`.
pub(super) fn read_into(mut file: File, range: &Range<u64>, memory: &Memory) -> Result<(), LoadReason> {
    let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let read = memory.map().read_exact_volatile_from(GuestAddress(range.start), &mut file, size);
    read.map_err(|error| LoadReason::Unreadable(std::io::Error::other(error)))
}
