//! Linux's bzImage, and the information that a kernel in long mode receives.

use super::*;

#[test]
fn a_bzimage_is_entered_in_its_64_bit_half() {
    let (loaded, memory) = good(&images::bzimage());
    assert_eq!((loaded.format, loaded.guest), (Format::BzImage, GuestKind::Linux));
    assert_eq!(loaded.entry, Entry::LongMode { rip: Pa(0x20_0200), boot_params: Pa(BOOT_PARAMS) });
    assert_eq!(bytes(&memory, 0x20_0000), [CODE; 2048]);
    // The setup header is copied up to its end, without anything that follows it in the file.
    assert_eq!(bytes(&memory, BOOT_PARAMS + 0x202), *b"HdrS\x0f\x02");
    assert_eq!(word(&memory, BOOT_PARAMS + 0x214), 0x20_0000, "code32_start");
    assert_eq!(word(&memory, BOOT_PARAMS + 0x260), 0x1_0000, "init_size");
    assert_eq!(bytes(&memory, BOOT_PARAMS + 0x26c), [0; 36]);
    assert_eq!(bytes(&memory, BOOT_PARAMS + 0x210), [0xff], "type_of_loader");
}

#[test]
fn a_kernel_goes_where_it_can_run() {
    let rip = |patches: &[(usize, &[u8])]| good(&patched(patches)).0.entry;
    let at = |address: u64| Entry::LongMode { rip: Pa(address + 0x200), boot_params: Pa(BOOT_PARAMS) };
    assert_eq!(rip(&[(field::PREF_ADDRESS, &[0, 0, 0x11])]), at(0x20_0000), "aligned");
    assert_eq!(rip(&[(field::PREF_ADDRESS, &[0, 0, 0])]), at(0x20_0000), "above 1 MiB");
    assert_eq!(rip(&[(field::PREF_ADDRESS, &[0, 0, 0x11]), (field::RELOCATABLE, &[0])]), at(0x11_0000));
    refused(&patched(&[(field::INIT_SIZE, &0x70_0000u32.to_le_bytes())]), "needs guest memory at 0x200000..0x900000");
    refused(&patched(&[(field::PREF_ADDRESS, &[0xff; 8])]), "pref_address is 0xffffffffffffffff");
    refused(&patched(&[(field::PREF_ADDRESS, &(1u64 << 32).to_le_bytes())]), "must lie below 4 GiB");
}

#[test]
fn boot_parameters_tell_of_initrd_command_line_and_memory() {
    let files = Files::new();
    let mut boot = files.auto(&images::bzimage());
    boot.initrd = Some(files.file("initrd", &[0x11; 0x1001]));
    boot.cmdline = "console=ttyS0".to_owned();
    let memory = Memory::new(8 * MIB).unwrap();
    load(&boot, &memory).unwrap();
    assert_eq!(text(&memory, word(&memory, BOOT_PARAMS + 0x228)), "console=ttyS0");
    let initrd = [0x218, 0x21c].map(|at| word(&memory, BOOT_PARAMS + at));
    assert_eq!(initrd, [0x7f_e000, 0x1001]);
    assert_eq!(bytes(&memory, initrd[0]), [0x11; 0x1001]);
    let e820: Vec<_> = (0..3).map(|index| BOOT_PARAMS + 0x2d0 + 20 * index).collect();
    assert_eq!(bytes(&memory, BOOT_PARAMS + 0x1e8), [3]);
    let entries: Vec<_> = e820.iter().map(|at| [0, 8, 16].map(|field| word(&memory, at + field))).collect();
    assert_eq!(entries, [[0, 0x9_fc00, 1], [0x9_fc00, 0x6_0400, 2], [MIB, 7 * MIB, 1]]);
}

#[test]
fn an_initrd_ends_where_the_kernel_can_reach_it() {
    let files = Files::new();
    let mut boot = files.auto(&patched(&[(field::INITRD_ADDR_MAX, &0x2f_ffffu32.to_le_bytes())]));
    boot.initrd = Some(files.file("initrd", &[0x11; 0x2000]));
    let memory = Memory::new(8 * MIB).unwrap();
    load(&boot, &memory).unwrap();
    assert_eq!(word(&memory, BOOT_PARAMS + 0x218), 0x2f_e000);

    let mut refused = |initrd: PathBuf, words: &str| {
        boot.initrd = Some(initrd);
        let said = load(&boot, &Memory::new(8 * MIB).unwrap()).unwrap_err().to_string();
        assert!(said.starts_with("initrd /") && said.contains(words), "no `{words}` in: {said}");
    };
    refused(
        files.file("large", &[0; 0x10_0001]),
        "its 1048577 bytes find no room in guest memory from 0x100000 to 0x300000",
    );
    refused(files.file("huge", &vec![0; 9 << 20]), "its 9437184 bytes find no room");
    refused(files.file("empty", &[]), "the file is empty");
    refused("/no/such/initrd".into(), "No such file");
    refused("/".into(), "not a file");
}

#[test]
fn a_bad_bzimage_is_told_apart() {
    let image = images::bzimage();
    refused(&image[..0x200], "truncated: its setup header would end at byte 612, and the file has 512");
    refused(&image[..0x204], "truncated: its setup header");
    refused(&image[..0x207], "truncated: its setup header");
    refused(&image[..0x260], "truncated: its setup header would end at byte 620, and the file has 608");
    refused(&image[..0x400], "truncated: its setup code would end at byte 1536, and the file has 1024");
    refused(
        &image[..image.len() - 1],
        "truncated: its protected-mode kernel would end at byte 3584, and the file has 3583",
    );
    refused(&patched(&[(field::SETUP_SECTS, &[0xff])]), "its setup code would end at byte 131072");
    refused(&patched(&[(field::SETUP_SECTS, &[0])]), "its protected-mode kernel would end at byte 4608");
    refused(&patched(&[(field::SYSSIZE, &[0xff; 4])]), "truncated: its protected-mode kernel");
    refused(&patched(&[(field::HEADER_LENGTH, &[0x20])]), "its setup header ends at byte 0x222 of the file");
    refused(&patched(&[(field::VERSION, &[0x0b, 2])]), "it has boot protocol 2.11, and 2.12 is needed");
    refused(&patched(&[(field::XLOADFLAGS, &[0])]), "no 64-bit entry point (xloadflags 0x0)");
    refused(&patched(&[(field::LOADFLAGS, &[0])]), "a zImage");
    refused(&patched(&[(field::KERNEL_ALIGNMENT, &[1])]), "kernel_alignment is 0x200001, not a power of two");
}
