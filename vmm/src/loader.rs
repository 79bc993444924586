//! Kernels: an ELF64 file is checked, and put into guest memory where its program headers want it.

use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{EI_CLASS, ELFCLASS32, EM_X86_64, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use linux_loader::loader::{Elf, KernelLoader};
use vector14_hook::Pa;

use crate::boot::RESERVED;
use crate::config::Kernel;
use crate::memory::Memory;

/// Why a kernel can't be loaded.
#[derive(Debug, thiserror::Error)]
#[error("kernel {}: {reason}", .path.display())]
pub struct LoadError {
    /// The kernel's file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: LoadReason,
}

/// What can be wrong with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadReason {
    /// The file can't be read.
    #[error("{0}")]
    Unreadable(std::io::Error),
    /// A folder or a device.
    #[error("not a file")]
    NotAFile,
    /// The file does not begin as ELF files do.
    #[error("not an ELF file: it begins with {0:02x?}, not with 7f 45 4c 46")]
    NotElf(Vec<u8>),
    /// An ELF file of another kind.
    #[error("not an x86-64 kernel: {0}")]
    WrongKind(String),
    /// Headers that can't be right, or point behind the end of the file.
    #[error("damaged or truncated: {0}")]
    Damaged(String),
    /// More than fits.
    #[error("too large: it needs guest memory at {:#x}..{:#x}, and there are {memory} bytes; raise vm.memory", .needs.start, .needs.end)]
    TooLarge {
        /// Guest-physical range that is asked for.
        needs: Range<u64>,
        /// Guest RAM, in bytes.
        memory: u64,
    },
    /// Two segments want the same memory, or one wants what the boot protocol needs.
    #[error("its segment at {:#x}..{:#x} overlaps {with} at {:#x}..{:#x}", .segment.start, .segment.end, .other.start, .other.end)]
    Overlap {
        /// Guest-physical range of the segment.
        segment: Range<u64>,
        /// What is there already.
        with: &'static str,
        /// Where that is.
        other: Range<u64>,
    },
    /// The entry point is in no segment.
    #[error("its entry point {0:#x} is in none of its segments")]
    Entry(u64),
}

/// Puts `kernel` into `memory`, and returns its entry point.
///
/// # Errors
/// [`LoadError`], with memory unspecified.
pub fn load(kernel: &Kernel, memory: &Memory) -> Result<Pa, LoadError> {
    let (path, loaded) = match kernel {
        Kernel::Tiny => (Path::new("tiny"), load_elf(vector14_guest::TINY, memory)),
        Kernel::Path(path) => (path.as_path(), read(path, memory).and_then(|image| load_elf(&image, memory))),
    };
    loaded.map_err(|reason| LoadError { path: path.to_owned(), reason })
}

fn read(path: &Path, memory: &Memory) -> Result<Vec<u8>, LoadReason> {
    let mut file = File::open(path).map_err(LoadReason::Unreadable)?;
    let metadata = file.metadata().map_err(LoadReason::Unreadable)?;
    if !metadata.is_file() {
        return Err(LoadReason::NotAFile);
    }
    // Debug information is not loaded: a file may be larger than memory, within reason.
    const FILE_LIMIT: u64 = 2 << 30;
    if metadata.len() > FILE_LIMIT {
        return Err(LoadReason::TooLarge { needs: 0..metadata.len(), memory: memory.ram_size() });
    }
    let mut image = Vec::new();
    file.read_to_end(&mut image).map_err(LoadReason::Unreadable)?;
    Ok(image)
}

fn load_elf(image: &[u8], memory: &Memory) -> Result<Pa, LoadReason> {
    let entry = check_elf(image, memory)?;
    Elf::load(memory.map(), None, &mut Cursor::new(image), None)
        .map_err(|error| LoadReason::Damaged(error.to_string()))?;
    Ok(entry)
}

/// Everything that can be wrong with the file, looked at before the first byte is loaded.
fn check_elf(image: &[u8], memory: &Memory) -> Result<Pa, LoadReason> {
    if !image.starts_with(b"\x7fELF") {
        return Err(LoadReason::NotElf(image.iter().copied().take(4).collect()));
    }
    if image.get(EI_CLASS) == Some(&ELFCLASS32) {
        return Err(LoadReason::WrongKind("a 32-bit ELF file".to_owned()));
    }
    let damaged = |error: elf::ParseError| LoadReason::Damaged(error.to_string());
    // Section headers are of no interest here; a file whose are cut off still loads.
    let file = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(damaged)?;
    let header = file.ehdr;
    if header.e_machine != EM_X86_64 {
        return Err(LoadReason::WrongKind(format!(
            "an ELF file for machine {}",
            elf::to_str::e_machine_to_string(header.e_machine)
        )));
    }
    if header.e_type != ET_EXEC {
        let kind = elf::to_str::e_type_to_string(header.e_type);
        return Err(LoadReason::WrongKind(format!(
            "an ELF file of type {kind}: link it statically, at fixed addresses"
        )));
    }
    let mut taken: Vec<Range<u64>> = Vec::new();
    for segment in file.segments().into_iter().flatten().filter(|segment| segment.p_type == PT_LOAD) {
        file.segment_data(&segment).map_err(damaged)?;
        if segment.p_memsz < segment.p_filesz {
            return Err(LoadReason::Damaged(format!(
                "a segment of {} bytes has {} in the file",
                segment.p_memsz, segment.p_filesz
            )));
        }
        let end = segment.p_paddr.checked_add(segment.p_memsz);
        let range = segment.p_paddr..end.ok_or_else(|| LoadReason::Damaged("a segment ends behind 2^64".to_owned()))?;
        place(&range, &taken, memory)?;
        taken.push(range);
    }
    if !taken.iter().any(|range| range.contains(&header.e_entry)) {
        return Err(LoadReason::Entry(header.e_entry));
    }
    Ok(Pa(header.e_entry))
}

/// Whether the segment at `range` has its memory for itself.
fn place(range: &Range<u64>, taken: &[Range<u64>], memory: &Memory) -> Result<(), LoadReason> {
    let in_ram = memory.ram().iter().any(|(start, size)| range.start >= *start && range.end <= start + size);
    if !in_ram && !range.is_empty() {
        return Err(LoadReason::TooLarge { needs: range.clone(), memory: memory.ram_size() });
    }
    let others = std::iter::once(("what the boot protocol needs", &RESERVED))
        .chain(taken.iter().map(|other| ("another one", other)));
    for (with, other) in others {
        if range.start < other.end && other.start < range.end {
            return Err(LoadReason::Overlap { segment: range.clone(), with, other: other.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u64 = 0x10_0000;

    /// An ELF64 executable whose segments are `(p_paddr, p_memsz)`, each with 16 bytes in the file.
    fn kernel(segments: &[(u64, u64)]) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(16, 0);
        for half in [ET_EXEC, EM_X86_64] {
            image.extend(half.to_le_bytes());
        }
        image.extend(1u32.to_le_bytes());
        for word in [ENTRY, 64, 0] {
            image.extend(word.to_le_bytes());
        }
        image.extend(0u32.to_le_bytes());
        let count = u16::try_from(segments.len()).unwrap();
        for half in [64, 56, count, 64, 0, 0] {
            image.extend(half.to_le_bytes());
        }
        let data = 64 + 56 * segments.len() as u64;
        for (start, size) in segments {
            image.extend(PT_LOAD.to_le_bytes());
            image.extend(5u32.to_le_bytes());
            for word in [data, *start, *start, 16, *size, 8] {
                image.extend(word.to_le_bytes());
            }
        }
        image.extend([0x90; 16]);
        image
    }

    fn refusal(image: &[u8]) -> String {
        let memory = Memory::new(4 << 20).unwrap();
        load_elf(image, &memory).unwrap_err().to_string()
    }

    #[test]
    fn a_good_kernel_is_where_its_headers_want_it() {
        let memory = Memory::new(4 << 20).unwrap();
        assert_eq!(load_elf(&kernel(&[(ENTRY, 0x1000)]), &memory).unwrap(), Pa(ENTRY));
        let mut code = [0; 17];
        memory.read(Pa(ENTRY), &mut code).unwrap();
        assert_eq!(code, [[0x90; 16].as_slice(), &[0]].concat()[..]);
    }

    #[test]
    fn every_way_to_be_wrong_is_named() {
        assert!(refusal(b"").contains("not an ELF file"));
        assert!(refusal(b"MZ\x90\0rest").contains("begins with [4d, 5a, 90, 00]"));
        assert!(refusal(&kernel(&[(ENTRY, 0x1000)])[..40]).contains("truncated"));
        assert!(refusal(&kernel(&[(ENTRY, 0x1000)])[..130]).contains("truncated"));
        assert!(refusal(&kernel(&[(ENTRY, 0x1000_0000)])).contains("raise vm.memory"));
        assert!(refusal(&kernel(&[(u64::MAX - 8, 0x1000)])).contains("behind 2^64"));
        assert!(
            refusal(&kernel(&[(ENTRY, 0x2000), (ENTRY + 0x1000, 0x1000)]))
                .contains("overlaps another one at 0x100000..0x102000")
        );
        assert!(refusal(&kernel(&[(0x7000, 0x1000)])).contains("overlaps what the boot protocol needs"));
        assert!(refusal(&kernel(&[(0x20_0000, 0x1000)])).contains("entry point 0x100000 is in none"));
        assert!(refusal(&kernel(&[(ENTRY, 8)])).contains("damaged"));
        let mut image = kernel(&[(ENTRY, 0x1000)]);
        image[18] = 183;
        assert!(refusal(&image).contains("EM_AARCH64"));
        image[4] = 1;
        assert!(refusal(&image).contains("32-bit"));
        let mut image = kernel(&[(ENTRY, 0x1000)]);
        image[16] = 3;
        assert!(refusal(&image).contains("ET_DYN"));
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let memory = Memory::new(4 << 20).unwrap();
        let missing = load(&Kernel::Path("/no/such/kernel".into()), &memory).unwrap_err().to_string();
        assert!(missing.contains("/no/such/kernel") && missing.contains("No such file"), "{missing}");
        let folder = load(&Kernel::Path("/".into()), &memory).unwrap_err().to_string();
        assert!(folder.contains("not a file"), "{folder}");
    }
}
