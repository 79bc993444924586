//! The tables as a kernel finds them: from the RSDP, by address, in guest memory.

use super::*;

fn machine(vcpus: u8) -> Machine {
    let virtio = (0..3).map(|slot| VirtioPlace {
        registers: 0xfeb0_0000 + slot * 0x1000..0xfeb0_1000 + slot * 0x1000,
        gsi: 16 + slot,
    });
    Machine { vcpus, virtio: virtio.collect() }
}

fn read(memory: &Memory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read(Pa(address), &mut bytes).unwrap();
    bytes
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A table at an address. Its checksum is checked.
fn table_at(memory: &Memory, address: u64) -> Vec<u8> {
    let length = usize::try_from(number(&read(memory, address + 4, 4), 0, 4)).unwrap();
    assert!(RESERVED.contains(&address) && address + length as u64 <= RESERVED.end, "{address:#x}, {length} bytes");
    let table = read(memory, address, length);
    assert_eq!(sum(&table), 0, "{}", String::from_utf8_lossy(&table[..4]));
    table
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

struct Tables {
    fadt: Vec<u8>,
    madt: Vec<u8>,
    dsdt: Vec<u8>,
}

fn tables(vcpus: u8) -> Tables {
    let memory = Memory::new(2 << 20).unwrap();
    write(&memory, &machine(vcpus)).unwrap();
    let rsdp = read(&memory, RSDP.0, 36);
    assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)), (&b"RSD PTR "[..], 0, 0));
    let xsdt = table_at(&memory, number(&rsdp, 24, 8));
    assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 2 * 8));
    let (fadt, madt) = (table_at(&memory, number(&xsdt, 36, 8)), table_at(&memory, number(&xsdt, 44, 8)));
    let dsdt = table_at(&memory, number(&fadt, 140, 8));
    assert_eq!((&fadt[..4], &madt[..4], &dsdt[..4]), (&b"FACP"[..], &b"APIC"[..], &b"DSDT"[..]));
    Tables { fadt, madt, dsdt }
}

/// Interrupt controller structures of an MADT, by type.
fn structures(madt: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = &madt[44..];
    let mut found = Vec::new();
    while let [kind, length, ..] = *rest {
        let (structure, next) = rest.split_at(usize::from(length));
        found.push((kind, structure));
        rest = next;
    }
    found
}

#[test]
fn the_madt_lists_every_cpu_once() {
    for vcpus in [1, 2, 8] {
        let tables = tables(vcpus);
        let structures = structures(&tables.madt);
        let cpus: Vec<_> =
            structures.iter().filter(|(kind, _)| *kind == 0).map(|(_, cpu)| (cpu[2], cpu[3], cpu[4])).collect();
        let expected: Vec<_> = (0..vcpus).map(|cpu| (cpu, cpu, 1)).collect();
        assert_eq!(cpus, expected);
        let others: Vec<_> = structures.iter().filter(|(kind, _)| *kind != 0).map(|(kind, _)| *kind).collect();
        assert_eq!(others, [1, 2, 4]);
    }
}

#[test]
fn the_fadt_says_how_to_end_the_machine() {
    let fadt = tables(1).fadt;
    const HW_REDUCED_AND_RESET: u64 = 1 << 20 | 1 << 10;
    assert_eq!(number(&fadt, 112, 4) & HW_REDUCED_AND_RESET, HW_REDUCED_AND_RESET);
    // Generic addresses: port space, 8 bits, from bit 0, byte access, and the port.
    let port = |port: u64| 1 | 8 << 8 | 1 << 24 | u128::from(port) << 32;
    let at = |offset: usize| u128::from(number(&fadt, offset, 8)) | u128::from(number(&fadt, offset + 8, 4)) << 64;
    assert_eq!((at(116), fadt[128]), (port(0xcf9), 6));
    assert_eq!((at(244), at(256)), (port(0x600), port(0x601)));
}

#[test]
fn the_dsdt_has_a_device_for_each_virtio_slot_and_a_way_to_power_off() {
    let dsdt = tables(1).dsdt;
    let count = |name: &[u8]| dsdt.windows(name.len()).filter(|window| *window == name).count();
    assert_eq!((count(b"LNRO0005"), count(b"_S5_")), (3, 1));
}

/// Disassembles the tables with ACPICA's compiler, and compiles the DSDT again. Not every machine has the compiler
/// (Debian: acpica-tools), so this test is a feature of its own.
#[cfg(feature = "iasl")]
#[test]
fn iasl_understands_the_tables() {
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let iasl = |arguments: &[&str]| {
        let output = Command::new("iasl").args(arguments).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "iasl {arguments:?}: {text}");
        text
    };
    let tables = tables(2);
    for (name, table) in [("dsdt", &tables.dsdt), ("facp", &tables.fadt), ("apic", &tables.madt)] {
        std::fs::write(folder.path().join(format!("{name}.aml")), table).unwrap();
        iasl(&["-d", &format!("{name}.aml")]);
        let source = std::fs::read_to_string(folder.path().join(format!("{name}.dsl"))).unwrap();
        assert!(!source.contains("Invalid") && !source.contains("Unknown"), "{source}");
        let said = iasl(&["-vw", "3073", &format!("{name}.dsl")]);
        assert!(name != "dsdt" || said.contains("0 Errors, 0 Warnings"), "{said}\n{source}");
    }
}
