//! A multiboot kernel: it prints the boot information that it was given and what it finds of the machine, and takes
//! faults.

use kvm_ioctls::{Cap, Kvm};
use libtest_mimic::Trial;
use tempfile::TempDir;
use vector14::config::{BootConfig, Config, Kernel, Module};

use crate::harness::{Guest, Oracle, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("multiboot", multiboot), kvm_test("multiboot::firmware", firmware)]
}

/// Writes the multiboot kernel to `folder`.
fn kernel(folder: &TempDir) -> Kernel {
    let path = folder.path().join("kernel");
    std::fs::write(&path, vector14_guest::MULTIBOOT).unwrap();
    Kernel::Path(path)
}

/// The firmware's tables for kernels that read no ACPI agree with the machine.
fn firmware() {
    let folder = TempDir::new().unwrap();
    let boot = BootConfig { cmdline: "firmware".to_owned(), ..BootConfig::of(kernel(&folder)) };
    let outcome = Guest::of(Config { boot, ..Config::tiny("") }).off().vcpus(2).run().passed();
    let has_deadline = Kvm::new().unwrap().check_extension(Cap::TscDeadlineTimer);
    let lines = [
        "multiboot: memory below 639 KiB, EBDA at 639 KiB, COM1 at 1016",
        "multiboot: MP tables: CPUs 2, buses 1, I/O APICs 1, interrupts 15, local interrupts 2",
        "multiboot: I/O APIC 15, by its register 15",
        if has_deadline { "multiboot: the TSC deadline has come" } else { "multiboot: no TSC deadline" },
    ];
    assert_eq!(outcome.console.lines().skip(3).collect::<Vec<_>>(), lines, "{outcome}");
}

fn multiboot() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("module");
    std::fs::write(&path, b"ABCDEFG").unwrap();
    let module = Module { path, string: "module with words".to_owned() };
    let boot = BootConfig { modules: vec![module], cmdline: "a=b c".to_owned(), ..BootConfig::of(kernel(&folder)) };
    let guest = || Guest::of(Config { boot: boot.clone(), ..Config::tiny("") });

    let off = guest().off().run().passed();
    assert_eq!(off.summary.faults.total, 0, "{off}");
    let oracle = Oracle::default();
    let on = guest().hook("oracle", oracle.clone()).run().passed().guest_saw_what_was_reinjected();
    oracle.agreed(&on);
    assert_eq!(on.console, off.console);
    assert_eq!(on.summary.faults.total, 32, "{on}");
    let lines = [
        "multiboot: memory 639+64512 KiB, ranges 3",
        "multiboot: cmdline kernel a=b c",
        "multiboot: modules 1",
        "multiboot: module module with words begins 41424344",
        "multiboot: long mode",
        "multiboot: faults=32 ok",
    ];
    assert_eq!(on.console.lines().collect::<Vec<_>>(), lines, "{on}");
}
