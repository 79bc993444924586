//! Handmade kernels for tests: small, and valid in everything that a loader checks.

#![expect(clippy::cast_possible_truncation, reason = "values that are written here, and fit")]

use elf::abi::{EM_386, EM_X86_64, ET_EXEC, PT_LOAD, PT_NOTE};

/// Where every kernel here is loaded and entered.
pub(super) const ENTRY: u64 = 0x10_0000;

/// What the code of every kernel here consists of.
pub(super) const CODE: u8 = 0x90;

/// An ELF note: name with its NUL, type, descriptor.
pub(super) type NoteParts<'a> = (&'a [u8], u32, &'a [u8]);

/// An ELF64 executable whose segments are `(p_paddr, p_memsz)`, all with the same 16 bytes of code.
pub(super) fn elf64(segments: &[(u64, u64)]) -> Vec<u8> {
    elf64_with_notes(segments, &[])
}

/// As [`elf64`], with notes in a segment of their own.
pub(super) fn elf64_with_notes(segments: &[(u64, u64)], notes: &[NoteParts<'_>]) -> Vec<u8> {
    let notes = note_bytes(notes);
    let count = segments.len() as u64 + 1;
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    put16(&mut image, &[ET_EXEC, EM_X86_64]);
    put32(&mut image, &[1]);
    put64(&mut image, &[ENTRY, 64, 0]);
    put32(&mut image, &[0]);
    put16(&mut image, &[64, 56, count as u16, 64, 0, 0]);
    let data = 64 + 56 * count;
    for (start, size) in segments {
        put32(&mut image, &[PT_LOAD, 5]);
        put64(&mut image, &[data, *start, *start, 16, *size, 8]);
    }
    put32(&mut image, &[PT_NOTE, 4]);
    put64(&mut image, &[data + 16, 0, 0, notes.len() as u64, notes.len() as u64, 4]);
    image.extend([CODE; 16]);
    image.extend(notes);
    image
}

/// An ELF32 multiboot kernel: one segment at [`ENTRY`], with the entry point after the header.
pub(super) fn multiboot_elf32(flags: u32) -> Vec<u8> {
    const DATA: u32 = 52 + 32;
    let mut image = b"\x7fELF\x01\x01\x01".to_vec();
    image.resize(16, 0);
    put16(&mut image, &[ET_EXEC, EM_386]);
    put32(&mut image, &[1, ENTRY as u32 + 12, 52, 0, 0]);
    put16(&mut image, &[52, 32, 1, 40, 0, 0]);
    put32(&mut image, &[PT_LOAD, DATA, ENTRY as u32, ENTRY as u32, 32, 0x2000, 5, 4]);
    put32(&mut image, &multiboot_header(flags));
    image.extend([CODE; 20]);
    image
}

/// A multiboot kernel without any other header. Its header is 16 bytes into the file, and contains `addresses`.
pub(super) fn multiboot_flat(addresses: [u32; 5]) -> Vec<u8> {
    let mut image = vec![CODE; 16];
    put32(&mut image, &multiboot_header(1 << 16 | 3));
    put32(&mut image, &addresses);
    image.resize(0x100, CODE);
    image
}

/// Valid address fields for [`multiboot_flat`]: header, load, load end, bss end, entry.
pub(super) const FLAT: [u32; 5] = [0x10_0010, 0x10_0000, 0x10_0080, 0x10_3000, 0x10_0030];

fn multiboot_header(flags: u32) -> [u32; 3] {
    const MAGIC: u32 = 0x1bad_b002;
    [MAGIC, flags, MAGIC.wrapping_add(flags).wrapping_neg()]
}

/// Offsets of a bzImage's fields.
pub(super) mod field {
    pub(crate) const SETUP_SECTS: usize = 0x1f1;
    pub(crate) const SYSSIZE: usize = 0x1f4;
    pub(crate) const HEADER_LENGTH: usize = 0x201;
    pub(crate) const VERSION: usize = 0x206;
    pub(crate) const LOADFLAGS: usize = 0x211;
    pub(crate) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(crate) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(crate) const RELOCATABLE: usize = 0x234;
    pub(crate) const XLOADFLAGS: usize = 0x236;
    pub(crate) const CMDLINE_SIZE: usize = 0x238;
    pub(crate) const PREF_ADDRESS: usize = 0x258;
    pub(crate) const INIT_SIZE: usize = 0x260;
}

/// A bzImage of boot protocol 2.15: two sectors of setup, 2 KiB of kernel that wants 64 KiB at 2 MiB.
pub(super) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    set(field::SETUP_SECTS, &[2]);
    set(field::SYSSIZE, &(2048u32 / 16).to_le_bytes());
    set(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    set(0x202, b"HdrS\x0f\x02");
    set(field::LOADFLAGS, &[1]);
    set(field::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
    set(field::KERNEL_ALIGNMENT, &0x20_0000u32.to_le_bytes());
    set(field::RELOCATABLE, &[1, 21, 0x7f, 0]);
    set(field::CMDLINE_SIZE, &2047u32.to_le_bytes());
    set(field::PREF_ADDRESS, &0x20_0000u64.to_le_bytes());
    set(field::INIT_SIZE, &0x1_0000u32.to_le_bytes());
    image.extend([CODE; 2048]);
    image
}

/// The bzImage with some of its bytes replaced.
pub(super) fn patched(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = bzimage();
    for (at, bytes) in patches {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

fn note_bytes(notes: &[NoteParts<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, descriptor) in notes {
        put32(&mut bytes, &[name.len() as u32, descriptor.len() as u32, *kind]);
        for part in [name, descriptor] {
            bytes.extend(*part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

pub(super) fn put16(image: &mut Vec<u8>, values: &[u16]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

pub(super) fn put32(image: &mut Vec<u8>, values: &[u32]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

pub(super) fn put64(image: &mut Vec<u8>, values: &[u64]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
