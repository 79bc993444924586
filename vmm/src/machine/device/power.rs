//! The registers that turn the machine off or reset it, and firmware code that resets it.

use vector14_hook::Pa;

use super::Device;
use crate::machine::stop::Stop;

/// The sleep control register (ACPI 4.8.3.7). The sleep status register is the next port.
pub(crate) const SLEEP_CONTROL_PORT: u16 = 0x600;
/// The sleep status register (ACPI 4.8.3.7).
pub(crate) const SLEEP_STATUS_PORT: u16 = 0x601;
/// Value of SLP_TYP in the sleep control register for S5, soft off.
pub(crate) const S5_SLEEP_TYPE: u8 = 5;

const SLEEP_CONTROL: u64 = 0;
/// QEMU's PM1a_CNT. Small kernels that read no ACPI tables write 0x2000 here to power off. No table mentions it.
const PM1A_CONTROL: u64 = 4;

/// Both registers for S5, from [`SLEEP_CONTROL_PORT`].
pub(crate) struct Sleep;

impl Sleep {
    /// Number of ports.
    pub(crate) const PORTS: u16 = 6;
}

impl Device for Sleep {
    /// Reads as 0: the machine has not been asleep, so WAK_STS is clear.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        // SLP_EN, and SLP_TYP below it (ACPI, tables 4.19 and 4.14).
        let off = match (offset, data) {
            (SLEEP_CONTROL, [control, ..]) => control & 0x3c == 1 << 5 | S5_SLEEP_TYPE << 2,
            (PM1A_CONTROL, [_, high, ..]) => high & 0x3c == 1 << 5,
            _ => false,
        };
        off.then_some(Stop::PowerOff)
    }
}

/// The reset control register that PC chipsets have among the PCI configuration ports.
pub(crate) const RESET_PORT: u16 = 0xcf9;
/// RST_CPU, and SYS_RST for a hard reset.
pub(crate) const RESET_VALUE: u8 = RST_CPU | 1 << 1;
const RST_CPU: u8 = 1 << 2;

/// Where a PC's CPU starts. A kernel that wants its firmware to reset the machine jumps here in real mode. Linux does
/// so on every hardware-reduced machine that was not booted by UEFI (arch/x86/kernel/reboot.c, reboot_init: it prefers
/// UEFI's reset to ACPI's there, and falls back to this without UEFI).
pub(crate) const RESET_VECTOR: Pa = Pa(0xf_fff0);

/// The whole firmware: `mov al, RESET_VALUE; mov dx, RESET_PORT; out dx, al; hlt; jmp` back to the `hlt`.
pub(crate) const RESET_CODE: [u8; 9] = {
    let [low, high] = RESET_PORT.to_le_bytes();
    [0xb0, RESET_VALUE, 0xba, low, high, 0xee, 0xf4, 0xeb, 0xfd]
};

/// The device at [`RESET_PORT`].
pub(crate) struct ResetControl;

impl Device for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Option<Stop> {
        data.first().is_some_and(|value| value & RST_CPU != 0).then_some(Stop::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_soft_off_turns_the_machine_off() {
        let write = |offset, data: &[u8]| Sleep.write(offset, data);
        assert_eq!(write(0, &[5 << 2 | 1 << 5]), Some(Stop::PowerOff));
        assert_eq!(write(4, &[0, 0x20]), Some(Stop::PowerOff));
        for (offset, data) in
            [(0, &[5 << 2][..]), (0, &[1 << 5]), (0, &[]), (1, &[0x34]), (4, &[0x20]), (4, &[0, 0x34])]
        {
            assert_eq!(write(offset, data), None, "{offset} {data:?}");
        }
    }

    #[test]
    fn the_code_at_the_reset_vector_resets() {
        let mut decoder = iced_x86::Decoder::new(16, &RESET_CODE, iced_x86::DecoderOptions::NONE);
        let instructions: Vec<_> = decoder.iter().collect();
        let codes: Vec<_> = instructions.iter().map(iced_x86::Instruction::mnemonic).collect();
        use iced_x86::Mnemonic::{Hlt, Jmp, Mov, Out};
        assert_eq!(codes, [Mov, Mov, Out, Hlt, Jmp]);
        assert_eq!((instructions[0].immediate8(), instructions[1].immediate16()), (RESET_VALUE, RESET_PORT));
        assert_eq!(instructions[4].near_branch16(), instructions[3].ip16());
    }

    #[test]
    fn only_rst_cpu_resets() {
        assert_eq!(ResetControl.write(0, &[RESET_VALUE]), Some(Stop::Reset));
        assert_eq!(ResetControl.write(0, &[2]), None);
        assert_eq!(ResetControl.write(0, &[]), None);
    }
}
