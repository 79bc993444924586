//! ELF kernels: their machine type, their segments, and their entry point.

use std::ops::Range;

use elf::ElfBytes;
use elf::abi::{EI_CLASS, ELFCLASS32, ELFCLASS64, ELFMAGIC, EM_386, EM_X86_64, ET_EXEC, PT_LOAD};
use elf::endian::AnyEndian;
use elf::segment::ProgramHeader;
use vector14_hook::Pa;

use super::error::LoadReason;
use super::space::Space;

/// Maximum number of program headers. There is a limit because every segment is compared with every other. Linux reads
/// at most 64 KiB of a program's headers, which is 1,170.
const HEADERS_MAX: usize = 1024;

/// The ELF file of a kernel.
pub(super) type ElfFile<'a> = ElfBytes<'a, AnyEndian>;

/// Which ELF files a boot protocol accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Files for long mode.
    Bits64,
    /// Files of either class: the kernel is entered in 32-bit mode.
    Any,
}

/// The segments of a kernel that is in memory.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) segments: Vec<ProgramHeader>,
    /// Where the last segment ends.
    pub(super) end: u64,
}

pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(&ELFMAGIC)
}

pub(super) fn is_elf64(image: &[u8]) -> bool {
    is_elf(image) && image.get(EI_CLASS) == Some(&ELFCLASS64)
}

/// Parses a file, which must be a statically linked x86 executable.
pub(super) fn parse(image: &[u8], width: Width) -> Result<ElfFile<'_>, LoadReason> {
    if !is_elf(image) {
        return Err(LoadReason::NotElf(image.iter().copied().take(4).collect()));
    }
    // Section headers are not needed: a file whose section headers are truncated still loads.
    let file = ElfFile::minimal_parse(image).map_err(damaged)?;
    let header = file.ehdr;
    let is_32_bit = image.get(EI_CLASS) == Some(&ELFCLASS32);
    if header.e_machine != if is_32_bit { EM_386 } else { EM_X86_64 } {
        // A 32-bit file for x86-64 uses the x32 ABI, or has the wrong class.
        let class = if is_32_bit { "a 32-bit" } else { "an" };
        let machine = elf::to_str::e_machine_to_string(header.e_machine);
        return Err(LoadReason::WrongKind(format!("{class} ELF file for machine {machine}")));
    }
    if is_32_bit && width == Width::Bits64 {
        return Err(LoadReason::WrongKind("a 32-bit ELF file without a multiboot header".to_owned()));
    }
    if header.e_type != ET_EXEC {
        let kind = elf::to_str::e_type_to_string(header.e_type);
        return Err(LoadReason::WrongKind(format!(
            "an ELF file of type {kind}: link it statically, at fixed addresses"
        )));
    }
    let count = file.segments().map_or(0, |headers| headers.len());
    if count > HEADERS_MAX {
        return Err(LoadReason::TooManyHeaders { count, limit: HEADERS_MAX });
    }
    Ok(file)
}

/// Loads every segment at its physical address. Memory must still be zero: bytes that a file leaves out are not
/// cleared.
pub(super) fn place_segments(file: &ElfFile<'_>, space: &mut Space<'_>) -> Result<Extent, LoadReason> {
    let mut extent = Extent { segments: Vec::new(), end: 0 };
    for segment in file.segments().into_iter().flatten().filter(|segment| segment.p_type == PT_LOAD) {
        let data = file.segment_data(&segment).map_err(damaged)?;
        if segment.p_memsz < segment.p_filesz {
            let ProgramHeader { p_memsz, p_filesz, .. } = segment;
            return Err(LoadReason::Damaged(format!("a segment of {p_memsz} bytes has {p_filesz} in the file")));
        }
        let range = physical(&segment).ok_or_else(|| LoadReason::Damaged("a segment ends beyond 2^64".to_owned()))?;
        extent.end = extent.end.max(range.end);
        space.claim(range.clone(), "another one")?;
        space.memory().write(Pa(range.start), data)?;
        extent.segments.push(segment);
    }
    Ok(extent)
}

/// The entry point of a kernel whose header gives it as a physical address.
pub(super) fn physical_entry(file: &ElfFile<'_>, extent: &Extent) -> Result<Pa, LoadReason> {
    let entry = file.ehdr.e_entry;
    let mut ranges = extent.segments.iter().filter_map(physical);
    if ranges.any(|range| range.contains(&entry)) { Ok(Pa(entry)) } else { Err(LoadReason::Entry(entry)) }
}

/// The entry point of a kernel whose header gives it as a virtual address, translated through its segment's physical
/// address, as GRUB does.
pub(super) fn virtual_entry(file: &ElfFile<'_>, extent: &Extent) -> Result<Pa, LoadReason> {
    let entry = file.ehdr.e_entry;
    let offset = |segment: &ProgramHeader| {
        entry.checked_sub(segment.p_vaddr).filter(|offset| *offset < segment.p_memsz).map(|at| segment.p_paddr + at)
    };
    extent.segments.iter().find_map(offset).map_or_else(|| physical_entry(file, extent), |entry| Ok(Pa(entry)))
}

fn physical(segment: &ProgramHeader) -> Option<Range<u64>> {
    Some(segment.p_paddr..segment.p_paddr.checked_add(segment.p_memsz)?)
}

fn damaged(error: elf::ParseError) -> LoadReason {
    LoadReason::Damaged(error.to_string())
}
