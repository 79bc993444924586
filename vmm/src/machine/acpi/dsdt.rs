//! The DSDT: devices that can't be discovered on a bus, and the state that powers the machine off.

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope};
use acpi_tables::sdt::Sdt;
use vector14_guest_abi::COM1;

use super::{Machine, append, table};
use crate::machine::device::{COM1_GSI, RTC_PORT, S5_SLEEP_TYPE};

/// Describes \_S5 (ACPI 7.4.2), the UART, the RTC and the virtio devices.
pub(super) fn dsdt(machine: &Machine) -> Sdt {
    const REVISION: u8 = 2;
    let mut dsdt = table(*b"DSDT", REVISION);
    append(&mut dsdt, &Name::new("_S5_".into(), &Package::new(vec![&S5_SLEEP_TYPE, &0u8, &0u8, &0u8])));
    let com1 = [&IO::new(COM1, COM1, 1, 8) as &dyn Aml, &interrupt(COM1_GSI)];
    append_device(&mut dsdt, "COM1", &EISAName::new("PNP0501"), 0, &com1);
    // No interrupt: the RTC has neither alarm nor periodic interrupt.
    append_device(&mut dsdt, "RTC0", &EISAName::new("PNP0B00"), 0, &[&IO::new(RTC_PORT, RTC_PORT, 1, 2)]);
    for (uid, place) in (0u32..).zip(&machine.virtio) {
        let (start, size) = (place.registers.start, place.registers.end - place.registers.start);
        let resources = [&Memory32Fixed::new(true, start, size) as &dyn Aml, &interrupt(place.gsi)];
        append_device(&mut dsdt, &format!("VR{uid:02}"), &"LNRO0005", uid, &resources);
    }
    dsdt
}

fn append_device(dsdt: &mut Sdt, name: &str, hardware_id: &dyn Aml, uid: u32, resources: &[&dyn Aml]) {
    let hardware_id = Name::new("_HID".into(), hardware_id);
    let uid = Name::new("_UID".into(), &uid);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources.to_vec()));
    let device = Device::new(name.into(), vec![&hardware_id, &uid, &resources]);
    append(dsdt, &Scope::new("_SB_".into(), vec![&device]));
}

/// An irqfd's interrupt: edge-triggered, active high, exclusive.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}
