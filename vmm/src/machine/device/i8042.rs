//! The part of the keyboard controller that resets the machine: command 0xfe pulses the CPU's reset line.

use super::Device;
use crate::machine::stop::Stop;

const DATA: u64 = 0;
const STATUS_COMMAND: u64 = 4;
const PULSE_RESET: u8 = 0xfe;

/// Status bit: the output buffer holds a byte for the CPU. Bit 1, for the input buffer, is always clear: the controller
/// accepts commands.
const OUTPUT_FULL: u8 = 1 << 0;

/// More bytes than any controller's buffer holds. Linux empties the buffer before it probes, and gives up on a
/// controller that returns more than 16 bytes, after 33 exits (drivers/input/serio/i8042.c, i8042_flush). It would poll
/// a controller that is empty and never answers 10,000 times (i8042_wait_read). The FADT says that there is no
/// controller: these bytes are for kernels that do not read it.
const STALE_BYTES: u8 = 17;

/// The controller's ports, from 0x60. No keyboard is connected.
pub(crate) struct I8042 {
    stale: u8,
}

impl I8042 {
    pub(crate) fn new() -> Self {
        Self { stale: STALE_BYTES }
    }
}

impl Device for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match (offset, data.first_mut()) {
            (DATA, _) => self.stale = self.stale.saturating_sub(1),
            (STATUS_COMMAND, Some(status)) if self.stale > 0 => *status = OUTPUT_FULL,
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        (offset == STATUS_COMMAND && data.first() == Some(&PULSE_RESET)).then_some(Stop::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &mut I8042, offset: u64) -> u8 {
        let mut data = [0xff];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn the_buffer_outlasts_a_probe_and_runs_dry_in_the_end() {
        let mut device = I8042::new();
        for _ in 0..16 {
            assert_eq!(read(&mut device, STATUS_COMMAND), OUTPUT_FULL);
            read(&mut device, DATA);
        }
        assert_eq!(read(&mut device, STATUS_COMMAND), OUTPUT_FULL);
        read(&mut device, DATA);
        assert_eq!(read(&mut device, STATUS_COMMAND), 0);
    }

    #[test]
    fn only_the_pulse_resets() {
        let mut device = I8042::new();
        assert_eq!(device.write(DATA, &[PULSE_RESET]), None);
        assert_eq!(device.write(STATUS_COMMAND, &[0xd1]), None);
        assert_eq!(device.write(STATUS_COMMAND, &[]), None);
        assert_eq!(device.write(STATUS_COMMAND, &[PULSE_RESET]), Some(Stop::Reset));
    }
}
