//! Good kernels, where they are placed and what they are told; bad kernels, and the errors that they cause.
//!
//! # Layout
//! - `elf`, `linux`, `multiboot`: one file per kind of kernel
//! - `unused`: the parts of a kernel that nothing uses
//! - below: what holds for all kinds
//! - `fuzz`: randomly damaged files
//! - `images`: the kernels

mod elf;
mod fuzz;
mod images;
mod linux;
mod multiboot;
mod unused;

use std::path::PathBuf;

use tempfile::TempDir;
use vector14_hook::{GuestKind, Pa, Va};

use self::images::{CODE, ENTRY, FLAT, field, patched};
use super::format::Format;
use super::load::Loaded;
use super::{LoadError, load};
use crate::machine::boot::Entry;
use crate::machine::config::{BootConfig, Kernel, Module, ProtocolChoice};
use crate::machine::memory::Memory;

const MIB: u64 = 1 << 20;

/// Where the boot parameters and Multiboot's boot information are.
const BOOT_PARAMS: u64 = 0x7000;
const INFO: u64 = 0x1_0000;

/// A folder for the files that `[boot]` names.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn boot(&self, kernel: &[u8], protocol: ProtocolChoice) -> BootConfig {
        BootConfig { protocol, ..BootConfig::of(Kernel::Path(self.file("kernel", kernel))) }
    }

    fn auto(&self, kernel: &[u8]) -> BootConfig {
        self.boot(kernel, ProtocolChoice::Auto)
    }
}

fn try_load(kernel: &[u8], size: u64) -> Result<(Loaded, Memory), LoadError> {
    let memory = Memory::new(size).unwrap();
    load(&Files::new().auto(kernel), &memory).map(|loaded| (loaded, memory))
}

fn good(kernel: &[u8]) -> (Loaded, Memory) {
    try_load(kernel, 8 * MIB).unwrap()
}

/// The error for a kernel that is refused.
#[track_caller]
fn said(kernel: &[u8], size: u64) -> String {
    try_load(kernel, size).map(|(loaded, _)| loaded).unwrap_err().to_string()
}

#[track_caller]
fn refused(kernel: &[u8], words: &str) {
    let said = said(kernel, 8 * MIB);
    assert!(said.contains(words), "no `{words}` in: {said}");
}

fn bytes<const N: usize>(memory: &Memory, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read(Pa(address), &mut bytes).unwrap();
    bytes
}

fn word(memory: &Memory, address: u64) -> u64 {
    u64::from(u32::from_le_bytes(bytes(memory, address)))
}

fn text(memory: &Memory, address: u64) -> String {
    (address..).map(|at| bytes::<1>(memory, at)[0]).take_while(|byte| *byte != 0).map(char::from).collect()
}

#[test]
fn two_mib_are_enough_for_a_kernel_at_1_mib() {
    try_load(&images::elf64(&[(ENTRY, 0x1000)]), 2 * MIB).unwrap();
    try_load(vector14_guest::TINY, 2 * MIB).unwrap();
    try_load(vector14_guest::MULTIBOOT, 2 * MIB).unwrap();
    let said = said(&images::elf64(&[(ENTRY, 0x1000)]), 0x1000);
    assert!(said.contains("needs guest memory at 0x7000..0xf000"), "{said}");
}

#[test]
fn memory_above_4_gib_is_told_of_and_costs_nothing() {
    let (_, memory) = try_load(&images::bzimage(), 5 << 30).unwrap();
    let entry = BOOT_PARAMS + 0x2d0 + 3 * 20;
    assert_eq!(bytes(&memory, entry), (1u64 << 32).to_le_bytes());
    assert_eq!(bytes(&memory, entry + 8), (2u64 << 30).to_le_bytes());
    memory.write(Pa(0x1_7fff_ffff), &[1]).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(resident.parse::<u64>().unwrap() < 1 << 20, "{resident} KiB are resident");
}

#[test]
fn every_command_line_has_its_limit() {
    let files = Files::new();
    let limit = |kernel: &[u8], limit: usize| {
        let mut boot = files.auto(kernel);
        boot.cmdline = "x".repeat(limit);
        load(&boot, &Memory::new(8 * MIB).unwrap()).unwrap();
        boot.cmdline.push('x');
        let said = load(&boot, &Memory::new(8 * MIB).unwrap()).unwrap_err().to_string();
        let words = format!("boot.cmdline has {} bytes, and this kernel takes at most {limit}", limit + 1);
        assert!(said.contains(&words), "{said}");
    };
    limit(&images::bzimage(), 2047);
    limit(&patched(&[(field::CMDLINE_SIZE, &255u32.to_le_bytes())]), 255);
    limit(&patched(&[(field::CMDLINE_SIZE, &u32::MAX.to_le_bytes())]), 4095);
    limit(&images::elf64_with_notes(&[(ENTRY, 0x1000)], &[(b"Linux\0", 0x101, &[0; 4])]), 2047);
    limit(&images::elf64(&[(ENTRY, 0x1000)]), 4095);
    limit(&images::multiboot_elf32(3), 4095);
}

#[test]
fn what_does_not_go_with_a_kernel_is_refused() {
    let files = Files::new();
    let said = |boot: &BootConfig| load(boot, &Memory::new(8 * MIB).unwrap()).unwrap_err().to_string();
    let module = |path: PathBuf| Module { string: String::new(), path };

    let mut boot = files.auto(&images::bzimage());
    boot.modules = vec![module(files.file("module", b"x"))];
    assert!(said(&boot).contains("a kernel of the kind bzImage takes no modules"), "{}", said(&boot));

    let mut boot = files.auto(&images::multiboot_elf32(3));
    boot.initrd = Some(files.file("initrd", b"x"));
    assert!(said(&boot).contains("takes no initrd: name the file in boot.modules"), "{}", said(&boot));
    boot.initrd = None;
    boot.modules = vec![module(files.file("module", &vec![0; 8 << 20]))];
    assert!(
        said(&boot).contains("its 8388608 bytes find no room in guest memory from 0x102000 to 0x800000"),
        "{}",
        said(&boot)
    );
    boot.modules = vec![Module { string: "x".repeat(1 << 20), ..module(files.file("module", b"x")) }];
    let words = "bytes of boot information, and the kernel leaves no such room at 0x10000..0x9fc00";
    assert!(said(&boot).contains(words), "{}", said(&boot));
    boot.modules = vec![module("/no/such/module".into())];
    assert!(said(&boot).starts_with("module /no/such/module: No such file"), "{}", said(&boot));
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let memory = Memory::new(4 * MIB).unwrap();
    let said = |path: &str| load(&BootConfig::of(Kernel::Path(path.into())), &memory).unwrap_err().to_string();
    assert!(said("/no/such/kernel").starts_with("kernel /no/such/kernel: No such file"), "{}", said("/no/such/kernel"));
    assert!(said("/").contains("not a file"), "{}", said("/"));
}
