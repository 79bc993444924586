//! As much of the keyboard controller as a reset takes: command 0xfe pulses the CPU's reset line.

use super::Device;
use crate::summary::Stop;

const COMMAND: u64 = 4;
const PULSE_RESET: u8 = 0xfe;

/// The controller's ports, from 0x60 on. No keyboard is connected: both buffers are always empty.
pub(crate) struct I8042;

impl Device for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop> {
        (offset == COMMAND && data.first() == Some(&PULSE_RESET)).then_some(Stop::Reset)
    }
}
