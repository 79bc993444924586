//! The tables of fixed form: FADT and MADT.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::sdt::Sdt;
use vector14_hook::Pa;

use super::{Machine, OEM, OEM_REVISION, OEM_TABLE, append, table};
use crate::machine::device::{RESET_PORT, RESET_VALUE, RTC_CENTURY, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};

/// IA-PC Boot Architecture Flags (ACPI 5.2.9.3). Bit 1 is clear: there is no 8042 to probe for, although its port for a
/// reset exists. Bit 5 is clear: there is a CMOS RTC.
const LEGACY_DEVICES: u16 = 1 << 0;
const NO_VGA: u16 = 1 << 2;
const NO_MSI: u16 = 1 << 3;

/// Address of the local APICs, which is where KVM's are after reset (KVM API 4.24).
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Address of the I/O APIC; see [`LOCAL_APIC`].
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
/// ID of the I/O APIC: above the IDs of all local APICs, and within the 4 bits of the I/O APIC's own register.
pub(crate) const IO_APIC_ID: u8 = 0xf;
/// I/O APIC pin of the ISA timer, IRQ 0, as on every PC.
pub(crate) const TIMER_PIN: u8 = 2;

/// The FADT: how to end the machine, and which hardware is absent (ACPI 5.2.9).
pub(super) fn fadt(dsdt: Pa) -> FADT {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port));
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt.0)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        // These flags are set if such a button is *not* a fixed one.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_MSI).into();
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"vector14").into();
    fadt.finalize()
}

/// The MADT: CPUs and interrupt controllers (ACPI 5.2.12). Local APIC IDs are vCPU numbers, as in CPUID.
pub(super) fn madt(machine: &Machine) -> Sdt {
    const REVISION: u8 = 5;
    /// The machine also has 8259s, which KVM emulates.
    const PCAT_COMPAT: u32 = 1;
    let mut madt = table(*b"APIC", REVISION);
    madt.append_slice(&LOCAL_APIC.to_le_bytes());
    madt.append_slice(&PCAT_COMPAT.to_le_bytes());
    for cpu in 0..machine.vcpus {
        append(&mut madt, &ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    append(&mut madt, &IoApic::new(IO_APIC_ID, IO_APIC, 0));
    madt.append_slice(&TIMER_OVERRIDE);
    madt.append_slice(&LOCAL_APIC_NMI);
    madt
}

/// Interrupt Source Override (ACPI 5.2.12.5) of ISA IRQ 0: edge-triggered, active high.
const TIMER_OVERRIDE: [u8; 10] = [2, 10, 0, 0, TIMER_PIN, 0, 0, 0, 0, 0];

/// Local APIC NMI (ACPI 5.2.12.7): NMI is connected to LINT1 of every CPU.
const LOCAL_APIC_NMI: [u8; 6] = [4, 6, 0xff, 0, 0, 1];
