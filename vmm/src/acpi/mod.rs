//! What the guest is told of its machine: ACPI tables (ACPI 6.5), written into low memory before it starts.
//!
//! The machine is hardware-reduced (ACPI 4.1): no SCI, no PM1 or GPE registers and no FACS, so a kernel finds nothing
//! to initialise, and nothing to poll. What is left is what the tables are for: the CPUs and interrupt controllers
//! (`tables`), the devices that can't be probed for (`dsdt`), and the registers that end the machine.

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
use crate::memory::Memory;

/// Where firmware would be: the guest's memory map must not call it RAM. The tables are in here, where a kernel that is
/// not told of the RSDP looks for it too (ACPI 5.2.5.1).
pub(crate) const RESERVED: Range<u64> = 0xe_0000..0x10_0000;

/// Where the RSDP is: what `boot_params.acpi_rsdp_addr` wants.
pub(crate) const RSDP: Pa = Pa(RESERVED.start);

/// Tables begin at multiples of this, which the RSDP has to (ACPI 5.2.5.1) and the others may.
const ALIGNMENT: u64 = 16;

const OEM: [u8; 6] = *b"VECT14";
const OEM_TABLE: [u8; 8] = *b"VECTOR14";
const OEM_REVISION: u32 = 1;

/// What the tables describe besides the devices that every machine has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) vcpus: u8,
    /// The virtio devices, in order.
    pub(crate) virtio: Vec<VirtioPlace>,
}

/// Where a virtio-mmio device is.
#[derive(Clone, Debug)]
pub(crate) struct VirtioPlace {
    /// Guest-physical addresses of its registers.
    pub(crate) registers: Range<u32>,
    pub(crate) gsi: u32,
}

/// Writes the tables that describe `machine`; the first of them is at [`RSDP`].
///
/// # Errors
/// Memory ends below the tables' end.
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

/// Lays tables one behind the other.
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
