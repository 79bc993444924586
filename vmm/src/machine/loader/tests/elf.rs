//! ELF kernels, and files for other machines.

use super::*;

#[test]
fn an_elf_kernel_is_where_its_headers_want_it() {
    let (loaded, memory) = good(&images::elf64(&[(ENTRY, 0x1000)]));
    assert_eq!((loaded.format, loaded.guest, loaded.stub), (Format::Elf, GuestKind::Other, None));
    assert_eq!(loaded.entry, Entry::LongMode { rip: Pa(ENTRY), boot_params: Pa(BOOT_PARAMS) });
    assert_eq!(bytes::<17>(&memory, ENTRY)[..], [[CODE; 16].as_slice(), &[0]].concat());
}

#[test]
fn notes_name_linux_and_the_place_of_the_stub() {
    let kernel = |notes: &[images::NoteParts<'_>]| good(&images::elf64_with_notes(&[(ENTRY, 0x1000)], notes)).0;
    let (start, end) = (0xffff_ffff_8100_0000u64, 0xffff_ffff_8100_0040u64);
    let range = [start.to_le_bytes(), end.to_le_bytes()].concat();
    let loaded = kernel(&[(b"GNU\0", 3, b"12345"), (b"vector14\0", 1, &range)]);
    assert_eq!((loaded.format, loaded.stub), (Format::Elf, Some(Va(start)..Va(end))));
    assert_eq!(kernel(&[(b"vector14\0", 1, &[0; 24])]).stub, None);
    assert_eq!(kernel(&[(b"vector14\0", 2, &[0; 8])]).stub, None);
    assert_eq!(kernel(&[(b"vector14\0", 1, &[0; 4])]).stub, None);
    assert_eq!(kernel(&[(b"Linux\0", 0x101, &[0; 4])]).guest, GuestKind::Linux);
    assert_eq!(kernel(&[(b"Xen\0", 6, b"linux\0")]).format, Format::Vmlinux);
    assert_eq!(kernel(&[(b"Xen\0", 18, &[0; 8])]).guest, GuestKind::Other);
}

#[test]
fn kernels_for_other_machines_are_named() {
    let with = |at: usize, magic: &[u8]| [vec![0; at], magic.to_vec(), vec![0; 100]].concat();
    refused(&with(0x38, b"ARM\x64"), "a Linux Image for ARM64");
    refused(&with(0x38, b"RSC\x05"), "a Linux Image for RISC-V");
    refused(&with(0x24, b"\x18\x28\x6f\x01"), "a Linux zImage for 32-bit ARM");
    refused(&with(0, b"\x1f\x8b\x08"), "a gzip file");
    refused(b"", "the file is empty");
    refused(b"#!/bin/sh", "not a kernel of a known kind");
    refused(b"MZ\x90\0rest", "begins with [4d, 5a, 90, 00]");
    let elf = |at: usize, byte: u8| {
        let mut image = images::elf64(&[(ENTRY, 0x1000)]);
        image[at] = byte;
        image
    };
    refused(&elf(18, 183), "EM_AARCH64");
    refused(&elf(18, 243), "EM_RISCV");
    refused(&elf(16, 3), "ET_DYN");
    let mut elf32 = images::multiboot_elf32(3);
    elf32[52 + 32] = 0;
    refused(&elf32, "a 32-bit ELF file without a multiboot header");
}

#[test]
fn a_bad_elf_kernel_is_told_apart() {
    refused(&images::elf64(&[(ENTRY, 0x1000)])[..40], "truncated");
    refused(&images::elf64(&[(ENTRY, 0x1000)])[..180], "truncated");
    refused(&images::elf64(&[(ENTRY, 0x1000_0000)]), "raise vm.memory");
    refused(&images::elf64(&[(1 << 32, 0x1000)]), "must lie below 4 GiB");
    refused(&images::elf64(&[(u64::MAX - 8, 0x1000)]), "beyond 2^64");
    refused(&images::elf64(&[(ENTRY, 0x2000), (ENTRY + 0x1000, 0x1000)]), "overlaps another one at 0x100000..0x102000");
    refused(&images::elf64(&[(0x7000, 0x1000)]), "overlaps what the boot protocol needs");
    refused(&images::elf64(&[(0xf_f000, 0x1000)]), "overlaps the reserved range at 0x9fc00..0x100000");
    refused(&images::elf64(&[(0x20_0000, 0x1000)]), "entry point 0x100000 is in none");
    refused(&images::elf64(&[(ENTRY, 8)]), "a segment of 8 bytes has 16 in the file");
}

#[test]
fn a_kernel_of_more_segments_than_any_has_is_refused_before_they_are_compared() {
    let segments: Vec<_> = (0..1024).map(|at| (ENTRY + at * 16, 16)).collect();
    good(&images::elf64(&segments[..1023]));
    refused(&images::elf64(&segments), "announces 1025 program headers, and at most 1024 are loaded");
}
