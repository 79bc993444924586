//! A multiboot kernel: what it says that it was told, and its faults.

use libtest_mimic::Trial;
use tempfile::TempDir;
use vector14::config::{BootConfig, Config, Kernel, Module};

use crate::harness::{Guest, Oracle, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("multiboot", multiboot)]
}

fn multiboot() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let kernel = Kernel::Path(file("kernel", vector14_guest::MULTIBOOT));
    let module = Module { path: file("module", b"ABCDEFG"), string: "module with words".to_owned() };
    let boot = BootConfig { modules: vec![module], cmdline: "a=b c".to_owned(), ..BootConfig::of(kernel) };
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
