//! Checks a library before any of its code runs.
//!
//! The dynamic linker trusts a file's headers: it maps the segments that they name, and reads and writes wherever its
//! tables point. So files that are truncated, or whose tables point outside the file, are refused here.

use std::ops::Range;

use elf::ElfBytes;
use elf::abi::{
    DF_1_PIE, DT_FINI_ARRAY, DT_FINI_ARRAYSZ, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_INIT_ARRAY, DT_INIT_ARRAYSZ,
    DT_JMPREL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_STRSZ, DT_STRTAB, DT_SYMTAB, DT_VERNEED, DT_VERSYM, EI_CLASS,
    EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAGIC, EM_X86_64, ET_DYN, ET_EXEC, ET_REL, PT_DYNAMIC, PT_LOAD, SHN_UNDEF,
};
use elf::endian::AnyEndian;
use elf::segment::ProgramHeader;
use elf::symbol::Symbol;
use elf::to_str::e_machine_to_human_str;
use vector14_hook::abi::{Descriptor, Prefix, SYMBOL};

use super::Reason;

type File<'a> = ElfBytes<'a, AnyEndian>;

/// Checks that `image` is a library that exports a descriptor of this version of the interface.
pub(super) fn check(image: &[u8]) -> Result<(), Reason> {
    check_kind(image)?;
    let file = File::minimal_parse(image).map_err(damaged)?;
    if file.ehdr.e_machine != EM_X86_64 {
        return Err(Reason::Architecture(machine(file.ehdr.e_machine)));
    }
    check_type(&file)?;
    let segments = loaded_segments(&file, image)?;
    check_dynamic(&file, &segments)?;
    let symbol = find_symbol(&file)?;
    let found = Prefix::from_bytes(&read_prefix(image, &segments, &symbol)?);
    found.check().map_err(Reason::Descriptor)?;
    // Checked last, because a descriptor of another version may have another size.
    let size = size_of::<Descriptor>() as u64;
    if symbol.st_size < size {
        return Err(damaged(format!("its `{SYMBOL}` has {} bytes instead of {size}", symbol.st_size)));
    }
    Ok(())
}

fn damaged(error: impl ToString) -> Reason {
    Reason::Damaged(error.to_string())
}

fn check_kind(image: &[u8]) -> Result<(), Reason> {
    if !image.starts_with(&ELFMAGIC) {
        return Err(Reason::NotLibrary(match image {
            [] => "empty".to_owned(),
            [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => {
                "a static library (crate-type `staticlib` or `rlib`)".to_owned()
            }
            _ => {
                let first: Vec<_> = image.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                format!("a file that begins with {}", first.join(" "))
            }
        }));
    }
    match (image.get(EI_CLASS), image.get(EI_DATA)) {
        (None, _) | (_, None) => Err(Reason::Damaged(format!("it has {} bytes", image.len()))),
        (Some(&ELFCLASS64), Some(&ELFDATA2LSB)) => Ok(()),
        (Some(&ELFCLASS64), Some(_)) => Err(Reason::Architecture("a big-endian CPU".to_owned())),
        (Some(_), Some(_)) => Err(Reason::Architecture("a 32-bit CPU".to_owned())),
    }
}

fn machine(number: u16) -> String {
    e_machine_to_human_str(number).map_or_else(|| format!("machine {number}"), str::to_owned)
}

fn check_type(file: &File<'_>) -> Result<(), Reason> {
    let flags = dynamic(file, DT_FLAGS_1)?.unwrap_or(0);
    match file.ehdr.e_type {
        ET_DYN if flags & DF_1_PIE.cast_unsigned() == 0 => Ok(()),
        ET_DYN | ET_EXEC => Err(Reason::NotLibrary("a program".to_owned())),
        ET_REL => Err(Reason::NotLibrary("an object file that was not linked".to_owned())),
        other => Err(Reason::NotLibrary(format!("an ELF file of type {other}"))),
    }
}

/// The segments to map. Refuses a file that does not hold all of their contents.
fn loaded_segments(file: &File<'_>, image: &[u8]) -> Result<Vec<ProgramHeader>, Reason> {
    // The section headers come last in the file: if they are complete, so is everything before them.
    file.section_headers_with_strtab().map_err(damaged)?;
    let headers = file.segments().ok_or_else(|| damaged("it has no segments"))?;
    let segments: Vec<_> = headers.iter().filter(|header| header.p_type == PT_LOAD).collect();
    for segment in &segments {
        let end = segment.p_offset.checked_add(segment.p_filesz).filter(|end| *end <= image.len() as u64);
        let in_memory = segment.p_vaddr.checked_add(segment.p_memsz).filter(|end| *end < 1 << 40);
        if end.is_none() || in_memory.is_none() || segment.p_filesz > segment.p_memsz {
            return Err(damaged(format!(
                "its segment at {:#x} needs {} bytes at offset {}, but the file has {}",
                segment.p_vaddr,
                segment.p_filesz,
                segment.p_offset,
                image.len()
            )));
        }
    }
    Ok(segments)
}

/// The value of the first entry with this tag in the dynamic table; `None` if there is none.
fn dynamic(file: &File<'_>, tag: i64) -> Result<Option<u64>, Reason> {
    let table = file.dynamic().map_err(damaged)?;
    Ok(table.and_then(|table| table.iter().find(|entry| entry.d_tag == tag)).map(|entry| entry.d_val()))
}

/// Checks that the tables that the dynamic linker uses lie within the segments.
fn check_dynamic(file: &File<'_>, segments: &[ProgramHeader]) -> Result<(), Reason> {
    let is_dynamic = |header: &ProgramHeader| header.p_type == PT_DYNAMIC;
    if !file.segments().is_some_and(|headers| headers.iter().any(|header| is_dynamic(&header))) {
        return Err(damaged("it has no dynamic table"));
    }
    // The tag of each table's address, and that of its size if there is one.
    let tables = [
        (DT_STRTAB, Some(DT_STRSZ)),
        (DT_RELA, Some(DT_RELASZ)),
        (DT_JMPREL, Some(DT_PLTRELSZ)),
        (DT_INIT_ARRAY, Some(DT_INIT_ARRAYSZ)),
        (DT_FINI_ARRAY, Some(DT_FINI_ARRAYSZ)),
        (DT_SYMTAB, None),
        (DT_GNU_HASH, None),
        (DT_HASH, None),
        (DT_VERSYM, None),
        (DT_VERNEED, None),
    ];
    for (tag, of_size) in tables {
        let Some(start) = dynamic(file, tag)? else { continue };
        let size = of_size.map_or(Ok(None), |tag| dynamic(file, tag))?.unwrap_or(1);
        let end = start.checked_add(size);
        let is_inside = |segment: &ProgramHeader| {
            end.is_some_and(|end| in_file(segment).contains(&start) && end <= in_file(segment).end)
        };
        if size > 0 && !segments.iter().any(is_inside) {
            return Err(damaged(format!(
                "tag {tag:#x} of its dynamic table points to {size} bytes at {start:#x}, outside of the file"
            )));
        }
    }
    Ok(())
}

/// The addresses in a segment whose contents are in the file; the rest is zero-filled.
fn in_file(segment: &ProgramHeader) -> Range<u64> {
    segment.p_vaddr..segment.p_vaddr + segment.p_filesz
}

/// Finds the symbol of the descriptor; its value is relative to the library's load address.
fn find_symbol(file: &File<'_>) -> Result<Symbol, Reason> {
    let Some((symbols, names)) = file.dynamic_symbol_table().map_err(damaged)? else { return Err(Reason::NoSymbol) };
    let is_ours = |symbol: &Symbol| {
        let name = usize::try_from(symbol.st_name).ok().and_then(|name| names.get(name).ok());
        symbol.st_shndx != SHN_UNDEF && name == Some(SYMBOL)
    };
    symbols.iter().find(is_ours).ok_or(Reason::NoSymbol)
}

/// Reads the first bytes of the descriptor from the file. No relocation changes them.
fn read_prefix(image: &[u8], segments: &[ProgramHeader], symbol: &Symbol) -> Result<[u8; Prefix::LENGTH], Reason> {
    let address = symbol.st_value;
    let segment = segments.iter().find(|segment| in_file(segment).contains(&address));
    let offset = segment.map(|segment| segment.p_offset + (address - segment.p_vaddr));
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    let bytes = offset.and_then(|offset| image.get(offset..)?.first_chunk());
    bytes.copied().ok_or_else(|| damaged(format!("its `{SYMBOL}` at {address:#x} is outside of the file")))
}

#[cfg(test)]
mod tests;
