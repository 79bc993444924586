//! Finds the parts of an ELF kernel's code that nothing uses, according to its file. The file does not say what the
//! kernel does at run time, so whoever uses such a place first checks that it still contains padding.

use std::ops::Range;

use elf::abi::{PF_X, SHN_LORESERVE, SHN_UNDEF, STT_FILE, STT_FUNC, STT_SECTION};
use elf::segment::ProgramHeader;
use vector14_hook::{PAGE_SIZE, Pa, Va};

use super::elf::{ElfFile, Extent};
use super::notes;

/// Lengths of usable gaps, in bytes: shorter gaps are of no use, and longer ones are not alignment.
const GAP: Range<u64> = 6..64;
/// Maximum number of ranges that are kept.
const LIMIT: usize = 1 << 14;

/// Room for stubs, according to a kernel's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StubRoom {
    /// The range that the kernel's note names.
    pub(super) named: Option<Range<Va>>,
    /// Ranges that nothing uses.
    pub(super) unused: Vec<Range<Pa>>,
}

impl StubRoom {
    pub(super) fn of(file: &ElfFile<'_>, extent: &Extent) -> Self {
        Self { named: notes::stub(file), unused: find(file, &extent.segments) }
    }

    /// The room in a Linux kernel. It patches its padding at run time, and has filler instead.
    pub(super) fn of_linux(file: &ElfFile<'_>) -> Self {
        Self { named: notes::stub(file), unused: Vec::new() }
    }
}

/// Guest-physical ranges that nothing uses, in executable segments and in the pages in which these begin and end.
fn find(file: &ElfFile<'_>, segments: &[ProgramHeader]) -> Vec<Range<Pa>> {
    let mut ranges = around_segments(segments);
    ranges.extend(between_functions(file, segments));
    ranges.truncate(LIMIT);
    ranges
}

/// The rest of the first and of the last page of each executable segment. The range after the whole kernel is left out,
/// because kernels begin to allocate there.
fn around_segments(segments: &[ProgramHeader]) -> Vec<Range<Pa>> {
    let mut by_address: Vec<_> = segments.iter().filter(|segment| segment.p_memsz > 0).collect();
    by_address.sort_by_key(|segment| segment.p_paddr);
    let mut ranges = Vec::new();
    let mut previous_end = 0;
    for (index, segment) in by_address.iter().enumerate() {
        let (start, end) = (segment.p_paddr, segment.p_paddr + segment.p_memsz);
        if segment.p_flags & PF_X != 0 {
            ranges.push(Pa(previous_end.max(start / PAGE_SIZE * PAGE_SIZE))..Pa(start));
            let next = by_address.get(index + 1).filter(|_| segment.p_filesz == segment.p_memsz);
            ranges.extend(next.map(|next| Pa(end)..Pa(next.p_paddr.min(end.next_multiple_of(PAGE_SIZE)))));
        }
        previous_end = end;
    }
    ranges.retain(|range| range.end.0 - range.start.0 >= GAP.start);
    ranges
}

/// The gaps between the end of a function and the next symbol that are no longer than the alignment of the latter
/// requires.
fn between_functions(file: &ElfFile<'_>, segments: &[ProgramHeader]) -> Vec<Range<Pa>> {
    let Ok(Some((symbols, _))) = file.symbol_table() else { return Vec::new() };
    let placed = symbols.iter().filter(|symbol| {
        let is_place = !matches!(symbol.st_symtype(), STT_SECTION | STT_FILE);
        is_place && symbol.st_shndx != SHN_UNDEF && symbol.st_shndx < SHN_LORESERVE
    });
    // Start and end of each symbol, and whether it is a function of known size.
    let mut extents: Vec<_> = placed
        .map(|symbol| {
            let end = symbol.st_value.saturating_add(symbol.st_size);
            (symbol.st_value, end, symbol.st_symtype() == STT_FUNC && symbol.st_size > 0)
        })
        .collect();
    extents.sort_unstable();
    let mut code: Vec<_> = segments.iter().filter(|segment| segment.p_flags & PF_X != 0).collect();
    code.sort_by_key(|segment| segment.p_vaddr);
    let mut gaps = Vec::new();
    let (mut covered, mut by_function) = (0, false);
    for (start, end, is_function) in extents {
        let length = start.saturating_sub(covered);
        if by_function && GAP.contains(&length) && length < 1 << start.trailing_zeros() {
            gaps.extend(physical(&code, covered..start));
        }
        if end > covered || (end == covered && !is_function) {
            (covered, by_function) = (end, is_function);
        }
    }
    gaps
}

/// Where a range of the file's code is loaded; `code` are the executable segments, by virtual address.
fn physical(code: &[&ProgramHeader], range: Range<u64>) -> Option<Range<Pa>> {
    let after = code.partition_point(|segment| segment.p_vaddr <= range.start);
    let segment = code.get(after.checked_sub(1)?)?;
    let (start, end) = (range.start - segment.p_vaddr, range.end - segment.p_vaddr);
    (end <= segment.p_filesz).then(|| Pa(segment.p_paddr + start)..Pa(segment.p_paddr + end))
}
