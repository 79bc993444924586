//! The parts of a kernel that nothing uses, according to its file.

use ::elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD, SHT_STRTAB, SHT_SYMTAB, STT_FUNC, STT_NOTYPE};

use super::images::{put16, put32, put64};
use super::*;

/// Code from 0x100080 to 0x101100 and data at 0x102000, with symbols: value, size, type.
fn kernel(code_in_file: u64, symbols: &[(u64, u64, u8)]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56 + 3 * 64;
    let symbols_size = 24 * symbols.len() as u64;
    let code = HEADERS + symbols_size;
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    put16(&mut image, &[ET_EXEC, EM_X86_64]);
    put32(&mut image, &[1]);
    put64(&mut image, &[0x10_0080, 64, 64 + 2 * 56]);
    put32(&mut image, &[0]);
    put16(&mut image, &[64, 56, 2, 64, 3, 0]);
    put32(&mut image, &[PT_LOAD, PF_R | PF_X]);
    put64(&mut image, &[code, 0xffff_8000_0000_0080, 0x10_0080, code_in_file, 0x1080, 8]);
    put32(&mut image, &[PT_LOAD, PF_R | PF_W]);
    put64(&mut image, &[code, 0x10_2000, 0x10_2000, 0, 0x10, 8]);
    image.extend([0; 64]);
    put32(&mut image, &[0, SHT_SYMTAB]);
    put64(&mut image, &[0, 0, HEADERS, symbols_size]);
    put32(&mut image, &[2, 0]);
    put64(&mut image, &[8, 24]);
    put32(&mut image, &[0, SHT_STRTAB]);
    put64(&mut image, &[0, 0, 0, 1]);
    put32(&mut image, &[0, 0]);
    put64(&mut image, &[1, 0]);
    for (value, size, kind) in symbols {
        put32(&mut image, &[0]);
        image.extend([*kind, 0]);
        put16(&mut image, &[1]);
        put64(&mut image, &[0xffff_8000_0000_0000 + value, *size]);
    }
    image.extend([CODE; 0x1080]);
    image
}

#[test]
fn the_pages_that_code_begins_and_ends_in_have_room() {
    assert_eq!(good(&kernel(0x1080, &[])).0.unused, [Pa(0x10_0000)..Pa(0x10_0080), Pa(0x10_1100)..Pa(0x10_2000)]);
    let before_bss = good(&kernel(0x1000, &[])).0.unused;
    assert_eq!(before_bss, [Pa(0x10_0000)..Pa(0x10_0080)], "what follows zeroed memory is none of the code's");
}

#[test]
fn alignment_between_functions_is_room() {
    let gaps = |symbols: &[(u64, u64, u8)]| good(&kernel(0x1080, symbols)).0.unused.split_off(2);
    let function = |start, size| (start, size, STT_FUNC);
    assert_eq!(gaps(&[function(0xb0, 0x10), function(0x80, 0x25)]), [Pa(0x10_00a5)..Pa(0x10_00b0)]);
    assert_eq!(gaps(&[function(0x80, 0x25), (0xb0, 0, STT_NOTYPE)]), [Pa(0x10_00a5)..Pa(0x10_00b0)]);
    let none: [&[(u64, u64, u8)]; 6] = [
        &[function(0x80, 0x20), function(0xb0, 0x10)],
        &[function(0x80, 0x25), function(0xae, 0x10)],
        &[function(0x80, 0x25), function(0xa8, 0x10)],
        &[function(0x80, 0x25), (0xa6, 0, STT_NOTYPE), function(0xb0, 0x10)],
        &[function(0x80, 0x60), function(0x90, 0x15), function(0xb0, 0x10)],
        &[function(0x2000, 0x25), function(0x2030, 0x10)],
    ];
    for symbols in none {
        assert_eq!(gaps(symbols), [], "{symbols:x?}");
    }
}

#[test]
fn linux_and_kernels_without_symbols_are_not_guessed_at() {
    assert_eq!(good(&images::bzimage()).0.unused, []);
    assert_eq!(good(&images::multiboot_flat(FLAT)).0.unused, []);
    let mut cut = kernel(0x1080, &[(0x80, 0x25, STT_FUNC), (0xb0, 0x10, STT_FUNC)]);
    let size_of_symbols = 64 + 2 * 56 + 64 + 32;
    cut[size_of_symbols..][..8].copy_from_slice(&(24u64 << 32).to_le_bytes());
    assert_eq!(good(&cut).0.unused.len(), 2);
}
