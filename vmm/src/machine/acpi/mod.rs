//! The ACPI tables (ACPI 6.5) that describe the machine to the guest, written into low memory before it starts.
//!
//! The machine is hardware-reduced (ACPI 4.1): no SCI, no PM1 or GPE registers and no FACS, so a kernel has nothing to
//! initialise and nothing to poll. What remains is the CPUs and interrupt controllers (`tables`), the devices that
//! can't be probed for (`dsdt`), and the registers that end the machine.

mod dsdt;
mod tables;
#[cfg(test)]
mod tests;

use std::ops::Range;

use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vector14_hook::{GuestError, Pa};

pub(crate) use self::tables::{IO_APIC, IO_APIC_ID, LOCAL_APIC, TIMER_PIN};
use crate::machine::memory::Memory;

/// The range of firmware, which the guest's memory map must not call RAM. The tables are here because a kernel that is
/// not told of the RSDP searches this range (ACPI 5.2.5.1).
pub(crate) const RESERVED: Range<u64> = 0xe_0000..0x10_0000;

/// Address of the RSDP, for `boot_params.acpi_rsdp_addr`.
pub(crate) const RSDP: Pa = Pa(RESERVED.start);

/// Alignment of the tables. Only the RSDP needs it (ACPI 5.2.5.1).
const ALIGNMENT: u64 = 16;

const OEM: [u8; 6] = *b"VECT14";
const OEM_TABLE: [u8; 8] = *b"VECTOR14";
const OEM_REVISION: u32 = 1;

/// What the tables describe besides the devices that are part of every machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) vcpus: u8,
    /// The virtio devices, in slot order.
    pub(crate) virtio: Vec<VirtioPlace>,
}

/// Location of a virtio-mmio device.
#[derive(Clone, Debug)]
pub(crate) struct VirtioPlace {
    /// Guest-physical addresses of its registers.
    pub(crate) registers: Range<u32>,
    pub(crate) gsi: u32,
}

/// Writes the tables that describe `machine`; the RSDP is at [`RSDP`].
///
/// # Errors
/// Memory ends before the end of the tables.
pub(crate) fn write(memory: &Memory, machine: &Machine) -> Result<(), GuestError> {
    let mut place = Place { memory, next: RSDP.offset(Rsdp::len() as u64) };
    let dsdt = place.put(&dsdt::dsdt(machine))?;
    let fadt = place.put(&tables::fadt(dsdt))?;
    let madt = place.put(&tables::madt(machine))?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt.0);
    xsdt.add_entry(madt.0);
    let xsdt = place.put(&xsdt)?;
    memory.write(RSDP, &bytes(&Rsdp::new(OEM, xsdt.0)))
}

/// Places tables one after the other.
struct Place<'a> {
    memory: &'a Memory,
    next: Pa,
}

impl Place<'_> {
    fn put(&mut self, table: &dyn Aml) -> Result<Pa, GuestError> {
        let (start, table) = (Pa(self.next.0.next_multiple_of(ALIGNMENT)), bytes(table));
        self.next = start.offset(table.len() as u64);
        debug_assert!(self.next.0 <= RESERVED.end, "the tables end at {}, beyond {RESERVED:x?}", self.next);
        self.memory.write(start, &table)?;
        Ok(start)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// An empty table with a header.
fn table(signature: [u8; 4], revision: u8) -> Sdt {
    const HEADER: u32 = 36;
    Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION)
}

/// Appends `part` to `table`.
fn append(table: &mut Sdt, part: &dyn Aml) {
    table.vec(&bytes(part));
}
