//! Files that are not kernels, or that do not fit: the error names the file, with status 2.

use libtest_mimic::Trial;

use crate::harness::{Command, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("bad-kernel::missing", missing),
        kvm_test("bad-kernel::a_folder", folder),
        kvm_test("bad-kernel::not_elf", not_elf),
        kvm_test("bad-kernel::truncated", truncated),
        kvm_test("bad-kernel::not_x86_64", not_x86_64),
        kvm_test("bad-kernel::too_large_for_memory", too_large),
        kvm_test("bad-kernel::overlapping", overlapping),
        kvm_test("bad-kernel::command_line_too_long", cmdline),
        kvm_test("bad-kernel::initrd_and_modules", initrd_and_modules),
    ]
}

const CONFIG: &str = "[boot]\nkernel = \"kernel.elf\"\n[vm]\nmemory = \"16M\"\n";

/// Checks that a changed copy of the tiny guest is refused: status 2, and an error that contains `words`.
fn refused(change: impl FnOnce(&mut Vec<u8>), words: &[&str]) {
    let mut kernel = vector14_guest::TINY.to_vec();
    change(&mut kernel);
    Command::run_config(CONFIG).file("kernel.elf", &kernel).finish().failed_with(2, &[&["kernel.elf"], words].concat());
}

/// Overwrites a field of the ELF header or of a program header.
fn patch(kernel: &mut [u8], offset: usize, bytes: &[u8]) {
    kernel[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Offset of a program header, counted from `e_phoff`.
fn program_header(kernel: &[u8], index: usize) -> usize {
    const SIZE: usize = 56;
    usize::from(kernel[32]) + index * SIZE
}

const P_PADDR: usize = 24;
const P_MEMSZ: usize = 40;

fn missing() {
    Command::run_config(CONFIG).finish().failed_with(2, &["kernel.elf", "config.toml:2"]);
}

fn folder() {
    Command::run_config("[boot]\nkernel = \".\"\n").finish().failed_with(2, &["config.toml:2"]);
}

fn not_elf() {
    refused(|kernel| patch(kernel, 0, b"MZ"), &["not a kernel of a known kind", "[4d, 5a, 4c, 46]"]);
    refused(Vec::clear, &["the file is empty"]);
}

fn truncated() {
    refused(|kernel| kernel.truncate(40), &["truncated"]);
    refused(|kernel| kernel.truncate(5000), &["truncated"]);
}

fn not_x86_64() {
    const AARCH64: [u8; 2] = [183, 0];
    refused(|kernel| patch(kernel, 18, &AARCH64), &["not an x86-64 kernel", "AARCH64"]);
    refused(|kernel| patch(kernel, 0x38, b"ARM\x64"), &["not an x86-64 kernel", "a Linux Image for ARM64"]);
}

fn too_large() {
    let grow = |kernel: &mut Vec<u8>| {
        let at = program_header(kernel, 0) + P_MEMSZ;
        patch(kernel, at, &(1u64 << 30).to_le_bytes());
    };
    refused(grow, &["too large", "raise vm.memory"]);
}

fn overlapping() {
    let boot = |kernel: &mut Vec<u8>| {
        let at = program_header(kernel, 0) + P_PADDR;
        patch(kernel, at, &0x7000u64.to_le_bytes());
    };
    refused(boot, &["overlaps what the boot protocol needs"]);
    let twice = |kernel: &mut Vec<u8>| {
        let (first, second) = (program_header(kernel, 0), program_header(kernel, 1));
        kernel.copy_within(first..first + 56, second);
    };
    refused(twice, &["overlaps another one"]);
}

fn cmdline() {
    let config = format!("[boot]\nkernel = \"tiny\"\ncmdline = \"{}\"\n", "x".repeat(5000));
    Command::run_config(&config).finish().failed_with(2, &["boot.cmdline has 5000 bytes", "4095"]);
}

fn initrd_and_modules() {
    let run = |line: &str| {
        let config = format!("[boot]\nkernel = \"tiny\"\n{line}\n[vm]\nmemory = \"2M\"\n");
        Command::run_config(&config).file("empty", b"").file("large", &vec![0; 2 << 20]).finish()
    };
    run("initrd = \"nothere\"").failed_with(2, &["boot.initrd", "No such file", "config.toml:3"]);
    run("initrd = \"empty\"").failed_with(2, &["initrd", "the file is empty"]);
    run("initrd = \"large\"").failed_with(2, &["initrd", "its 2097152 bytes find no room in guest memory"]);
    run("modules = [\"large\"]").failed_with(2, &["module", "only multiboot kernels do"]);
}
