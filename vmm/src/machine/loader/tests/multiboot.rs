//! Multiboot kernels, and the information that they receive.

use super::*;

#[test]
fn a_multiboot_kernel_is_told_what_there_is() {
    let files = Files::new();
    let mut boot = files.auto(&images::multiboot_elf32(3));
    boot.cmdline = "a b".to_owned();
    let module =
        |name: &str, size| Module { path: files.file(name, &vec![0x11; size]), string: format!("{name} words") };
    boot.modules = vec![module("one", 0x1001), module("two", 3)];
    let memory = Memory::new(8 * MIB).unwrap();
    let loaded = load(&boot, &memory).unwrap();
    assert_eq!((loaded.format, loaded.guest), (Format::Multiboot, GuestKind::Other));
    assert_eq!(loaded.entry, Entry::ProtectedMode { eip: Pa(ENTRY + 12), info: Pa(INFO) });

    let field = |at| word(&memory, INFO + at);
    assert_eq!(field(0), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_eq!((field(4), field(8)), (639, 7 * 1024));
    assert_eq!(text(&memory, field(16)), "kernel a b");
    assert_eq!((field(20), text(&memory, field(64))), (2, "vector14".to_owned()));
    // The kernel ends at 0x102000.
    let modules = [0, 1].map(|index| [0, 4, 8].map(|at| word(&memory, field(24) + 16 * index + at)));
    assert_eq!(modules.map(|[start, end, _]| (start, end)), [(0x10_2000, 0x10_3001), (0x10_4000, 0x10_4003)]);
    assert_eq!(modules.map(|[_, _, string]| text(&memory, string)), ["one words", "two words"]);
    assert_eq!(bytes(&memory, 0x10_4000), [0x11, 0x11, 0x11, 0]);
    assert_eq!(field(44), 3 * 24);
    let last = [0, 4, 12, 20].map(|at| word(&memory, field(48) + 2 * 24 + at));
    assert_eq!(last, [20, MIB, 7 * MIB, 1]);
}

#[test]
fn a_multiboot_kernel_without_elf_header_goes_where_its_own_header_says() {
    let (loaded, memory) = good(&images::multiboot_flat(FLAT));
    assert_eq!(loaded.entry, Entry::ProtectedMode { eip: Pa(0x10_0030), info: Pa(INFO) });
    assert_eq!(word(&memory, 0x10_0010), 0x1bad_b002);
    assert_eq!(bytes(&memory, 0x10_007f), [CODE, 0]);
    let whole_file = [FLAT[0], FLAT[1], 0, 0, FLAT[4]];
    assert_eq!(bytes(&good(&images::multiboot_flat(whole_file)).1, 0x10_00ff), [CODE, 0]);
}

#[test]
fn what_the_protocol_needs_goes_where_a_low_kernel_is_not() {
    // As kvm-unit-tests' real-mode kernel: from 32 KiB, over the preferred place of the boot information.
    let image = images::multiboot_flat([0x8010, 0x8000, 0x8080, 0x3_1000, 0x8030]);
    let (loaded, memory) = good(&image);
    assert_eq!(loaded.entry, Entry::ProtectedMode { eip: Pa(0x8030), info: Pa(0x3_1000) });
    assert_eq!(text(&memory, word(&memory, 0x3_1000 + 16)), "kernel");
    assert_eq!((word(&memory, 0x8010), word(&memory, INFO)), (0x1bad_b002, 0));
    let all = images::multiboot_flat([0x1010, 0x1000, 0x1080, 0x9_fc00, 0x1030]);
    refused(&all, "the kernel leaves no such room at 0x10000..0x9fc00");
}

#[test]
fn a_bad_multiboot_kernel_is_told_apart() {
    let flat = |addresses| images::multiboot_flat(addresses);
    let mut image = flat(FLAT);
    image[24] ^= 1;
    refused(&image, "multiboot header at byte 0x10: magic number, flags and checksum make 0x");
    refused(&flat(FLAT)[..0x20], "multiboot header at byte 0x10: its address fields are truncated");
    refused(&flat(FLAT)[..0x40], "what is loaded ends beyond the file: header 0x100010, load 0x100000..0x100080");
    refused(&images::multiboot_elf32(1 << 2), "bits 0x4 (a video mode: there is no display)");
    refused(&images::multiboot_elf32(1 << 15 | 1), "flags 0x8001 ask for something that is not offered: bits 0x8000");
    good(&images::multiboot_elf32(0xfffe_0003));
    let [header, start, load_end, bss_end, entry] = FLAT;
    let cases = [
        ([start - 4, start, load_end, bss_end, entry], "the header lies below what is loaded"),
        ([header + 4, start, load_end, bss_end, entry], "what is loaded begins before the file"),
        ([header, start, start - 1, bss_end, entry], "what is loaded ends before it begins"),
        ([header, start, load_end, load_end - 1, entry], "the zeroed memory ends before what is loaded"),
        ([header, start, load_end, bss_end, load_end], "entry point 0x100080 is in none"),
        ([header, start, load_end, 0x90_0000, entry], "needs guest memory at 0x100000..0x900000"),
        ([0xf000_0010, 0xf000_0000, 0, 0, 0xf000_0030], "must lie below 4 GiB, and outside of the hole"),
        ([0x410, 0x400, 0, 0, 0x430], "overlaps the BIOS data area and the descriptor table at 0x400..0x520"),
        ([0x9_fb10, 0x9_fb00, 0, 0x9_fc01, 0x9_fb30], "overlaps the reserved range at 0x9fc00..0x100000"),
    ];
    for (addresses, words) in cases {
        refused(&flat(addresses), words);
    }
    let files = Files::new();
    let said = |image: &[u8]| {
        let boot = files.boot(image, ProtocolChoice::Multiboot);
        load(&boot, &Memory::new(8 * MIB).unwrap()).unwrap_err().to_string()
    };
    assert!(said(&images::elf64(&[(ENTRY, 0x1000)])).contains("no multiboot header"));
    assert!(said(&[0xe852_50d6u32.to_le_bytes(), [0; 4]].concat()).contains("a multiboot 2 kernel"));
}
