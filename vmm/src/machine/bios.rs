//! What a PC's BIOS leaves in memory for kernels that read no ACPI tables: the BIOS data area, and the MP tables (Intel
//! MultiProcessor Specification 1.4). Both describe the machine that the ACPI tables describe.
//!
//! Virtio devices are only in the ACPI tables: no bus of the MP tables has them.

use std::arch::x86_64::__cpuid;

use vector14_guest_abi::COM1;
use vector14_hook::{GuestError, Pa};

use crate::machine::acpi::{IO_APIC, IO_APIC_ID, LOCAL_APIC, TIMER_PIN};
use crate::machine::boot::layout::EBDA;
use crate::machine::memory::Memory;

/// BIOS data area: the port of the first UART.
const BDA_COM1: Pa = Pa(0x400);
/// BIOS data area: the real-mode segment of the extended BIOS data area.
const BDA_EBDA_SEGMENT: Pa = Pa(0x40e);
/// BIOS data area: the size of conventional memory, in KiB.
const BDA_MEMORY_SIZE: Pa = Pa(0x413);

/// Address of the MP floating pointer structure (MP 4.1); the configuration table follows it. Kernels search this
/// part of the ROM's addresses. The ACPI tables end below it.
const FLOATING_POINTER: u32 = 0xf_0000;
const CONFIGURATION_TABLE: u32 = FLOATING_POINTER + 16;

/// Version 1.4 of the specification, as both structures encode it.
const SPECIFICATION: u8 = 4;
/// The one bus that the table names.
const ISA_BUS: u8 = 0;
/// Stands for all local APICs in the place of a local APIC's ID (MP 4.3.5).
const EVERY_LOCAL_APIC: u8 = 0xff;
/// Version registers of KVM's interrupt controllers.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;

/// Writes the BIOS data area, the extended one, and the MP tables of a machine with `vcpus` CPUs.
///
/// # Errors
/// Memory ends below the tables' end.
pub(crate) fn write(memory: &Memory, vcpus: u8) -> Result<(), GuestError> {
    memory.write(BDA_COM1, &COM1.to_le_bytes())?;
    memory.write(BDA_EBDA_SEGMENT, &word(EBDA >> 4))?;
    memory.write(BDA_MEMORY_SIZE, &word(EBDA >> 10))?;
    // The extended area begins with its size in KiB.
    memory.write(Pa(EBDA), &[1])?;
    memory.write(Pa(FLOATING_POINTER.into()), &floating_pointer())?;
    memory.write(Pa(CONFIGURATION_TABLE.into()), &configuration_table(vcpus))
}

/// The MP floating pointer structure (MP 4.1). No IMCR: 8259s and APICs are connected side by side.
fn floating_pointer() -> [u8; 16] {
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&CONFIGURATION_TABLE.to_le_bytes());
    pointer[8] = 1; // Its length in paragraphs.
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);
    pointer
}

/// The MP configuration table (MP 4.2).
fn configuration_table(vcpus: u8) -> Vec<u8> {
    const HEADER_SIZE: usize = 44;
    let entries: Vec<Vec<u8>> = (0..vcpus).map(processor).chain(interrupt_controllers()).collect();
    let mut table = vec![0; HEADER_SIZE];
    table[..4].copy_from_slice(b"PCMP");
    table[6] = SPECIFICATION;
    table[8..28].copy_from_slice(b"VECT14  VECTOR14    ");
    table[34..36].copy_from_slice(&word(entries.len() as u64));
    table[36..40].copy_from_slice(&LOCAL_APIC.to_le_bytes());
    table.extend(entries.concat());
    let length = word(table.len() as u64);
    table[4..6].copy_from_slice(&length);
    table[7] = checksum(&table);
    table
}

/// The entry of a CPU, whose local APIC ID is its number (MP 4.3.1).
fn processor(cpu: u8) -> Vec<u8> {
    const ENABLED: u8 = 1 << 0;
    const BOOTSTRAP: u8 = 1 << 1;
    let flags = if cpu == 0 { ENABLED | BOOTSTRAP } else { ENABLED };
    let mut entry = vec![0, cpu, LOCAL_APIC_VERSION, flags];
    let identification = __cpuid(1);
    entry.extend(identification.eax.to_le_bytes());
    entry.extend(identification.edx.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

/// The entries of the ISA bus, of the I/O APIC, and of what is connected to its pins and to those of the local APICs
/// (MP 4.3.2 to 4.3.5).
fn interrupt_controllers() -> Vec<Vec<u8>> {
    const ENABLED: u8 = 1;
    const INT: u8 = 0;
    const NMI: u8 = 1;
    const EXT_INT: u8 = 3;
    const BOOTSTRAP_LOCAL_APIC: u8 = 0;
    // Polarity and trigger are the bus's own: active high and edge.
    let io = |irq, pin| vec![3, INT, 0, 0, ISA_BUS, irq, IO_APIC_ID, pin];
    let local = |kind, apic, pin| vec![4, kind, 0, 0, ISA_BUS, 0, apic, pin];

    let mut io_apic = vec![2, IO_APIC_ID, IO_APIC_VERSION, ENABLED];
    io_apic.extend(IO_APIC.to_le_bytes());
    let mut entries = vec![[&[1, ISA_BUS][..], b"ISA   "].concat(), io_apic, io(0, TIMER_PIN)];
    // IRQ 2 is where the second 8259 is connected to the first.
    entries.extend((1..16).filter(|irq| *irq != 2).map(|irq| io(irq, irq)));
    entries.extend([local(EXT_INT, BOOTSTRAP_LOCAL_APIC, 0), local(NMI, EVERY_LOCAL_APIC, 1)]);
    entries
}

/// A number below 64 Ki, as the structures encode it.
fn word(value: u64) -> [u8; 2] {
    let [low, high, ..] = value.to_le_bytes();
    [low, high]
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::acpi;

    const VCPUS: u8 = 3;

    fn read(memory: &Memory, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read(Pa(address), &mut bytes).unwrap();
        bytes
    }

    /// Memory with all tables in it, and the entries of the configuration table, found as a kernel finds them.
    fn entries() -> (Memory, Vec<Vec<u8>>) {
        let memory = Memory::new(2 << 20).unwrap();
        acpi::write(&memory, &acpi::Machine { vcpus: VCPUS, virtio: Vec::new() }).unwrap();
        write(&memory, VCPUS).unwrap();
        let rom = read(&memory, 0xf_0000, 0x1_0000);
        let mut pointers = rom.chunks(16).filter(|chunk| chunk.starts_with(b"_MP_") && checksum(chunk) == 0);
        let table = u32::from_le_bytes(*pointers.next().unwrap()[4..].first_chunk().unwrap());
        assert_eq!(pointers.next(), None);

        let header = read(&memory, table.into(), 44);
        let table = read(&memory, table.into(), usize::from(u16::from_le_bytes([header[4], header[5]])));
        assert_eq!((&table[..4], checksum(&table), &table[36..40]), (&b"PCMP"[..], 0, &LOCAL_APIC.to_le_bytes()[..]));
        let mut rest = &table[44..];
        let mut entries = Vec::new();
        while let [kind, ..] = *rest {
            let (entry, next) = rest.split_at(if kind == 0 { 20 } else { 8 });
            entries.push(entry.to_vec());
            rest = next;
        }
        assert_eq!(entries.len(), usize::from(table[34]));
        (memory, entries)
    }

    #[test]
    fn the_bios_data_area_has_the_memory_that_the_memory_map_has() {
        let (memory, _) = entries();
        assert_eq!(read(&memory, 0x400, 2), 0x3f8u16.to_le_bytes());
        assert_eq!(read(&memory, 0x40e, 2), 0x9fc0u16.to_le_bytes());
        assert_eq!(read(&memory, 0x413, 2), 639u16.to_le_bytes());
        assert_eq!(read(&memory, 0x9_fc00, 1), [1], "KiB up to the end of conventional memory");
    }

    #[test]
    fn cpus_and_interrupt_controllers_are_those_of_the_madt() {
        let (memory, entries) = entries();
        let acpi = read(&memory, acpi::RESERVED.start, 0x1_0000);
        let madt = acpi.windows(4).position(|window| window == b"APIC").unwrap();
        let mut rest = &acpi[madt + 44..madt + usize::from(acpi[madt + 4])];
        let (mut cpus, mut io_apics) = (Vec::new(), Vec::new());
        while let [kind, length, ..] = *rest {
            let (structure, next) = rest.split_at(length.into());
            match kind {
                0 => cpus.push(structure[3]),
                1 => io_apics.push((structure[2], structure[4..8].to_vec())),
                _ => {}
            }
            rest = next;
        }
        let of_kind = |kind| entries.iter().filter(move |entry| entry[0] == kind);
        assert_eq!(of_kind(0).map(|entry| entry[1]).collect::<Vec<_>>(), cpus);
        assert_eq!(of_kind(0).map(|entry| entry[3]).collect::<Vec<_>>(), [3, 1, 1], "the first one boots");
        assert_eq!(of_kind(2).map(|entry| (entry[1], entry[4..8].to_vec())).collect::<Vec<_>>(), io_apics);
    }

    #[test]
    fn isa_interrupts_are_at_the_pins_of_their_numbers_and_the_timer_is_at_2() {
        let (_, entries) = entries();
        let interrupts: Vec<_> =
            entries.iter().filter(|entry| entry[0] == 3).map(|entry| (entry[5], entry[7])).collect();
        let expected: Vec<_> = [(0, 2), (1, 1)].into_iter().chain((3..16).map(|irq| (irq, irq))).collect();
        assert_eq!(interrupts, expected);
        assert_eq!(entries.iter().filter(|entry| entry[0] == 4).count(), 2, "ExtINT and NMI");
    }
}
