//! The notes of an ELF kernel.

use std::ops::Range;

use elf::abi::PT_NOTE;
use elf::note::{Note, NoteAny};
use vector14_hook::Va;

use super::elf::ElfFile;

/// Type of the note, of name `vector14`, that declares a range for stubs.
const STUB_NOTE: u64 = 1;
/// `XEN_ELFNOTE_GUEST_OS` (Xen, public/elfnote.h).
const XEN_GUEST_OS: u64 = 6;

/// Whether the file is a Linux kernel. Any of these identifies it:
/// - a note of name `Linux`, which its build puts there since 4.19 (include/linux/elfnote.h);
/// - a note of name `Xen` that says the guest is `linux`: other kernels have notes of that name too;
/// - a section `__ksymtab`, of the symbols that modules use.
pub(super) fn is_linux(file: &ElfFile<'_>) -> bool {
    let by_note = notes(file).any(|note| match note.name {
        b"Linux\0" => true,
        b"Xen\0" => note.n_type == XEN_GUEST_OS && note.desc.starts_with(b"linux"),
        _ => false,
    });
    by_note || matches!(file.section_header_by_name("__ksymtab"), Ok(Some(_)))
}

/// The range that the kernel declares as room for stubs.
pub(super) fn stub(file: &ElfFile<'_>) -> Option<Range<Va>> {
    let note = notes(file).find(|note| note.name == b"vector14\0" && note.n_type == STUB_NOTE)?;
    let (start, end) = note.desc.split_first_chunk()?;
    Some(Va(u64::from_le_bytes(*start))..Va(u64::from_le_bytes(end.try_into().ok()?)))
}

/// All notes of each segment, up to the first one that is damaged.
fn notes<'a>(file: &ElfFile<'a>) -> impl Iterator<Item = NoteAny<'a>> {
    let segments = file.segments().into_iter().flatten().filter(|segment| segment.p_type == PT_NOTE);
    let notes = segments.filter_map(|segment| file.segment_data_as_notes(&segment).ok()).flatten();
    notes.filter_map(|note| if let Note::Unknown(note) = note { Some(note) } else { None })
}
