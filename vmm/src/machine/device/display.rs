//! Stands in for a colour display's controller: there is no display, and the cursor is in the upper left corner.

use super::Device;
use crate::machine::stop::Stop;

/// The index port of a colour display's CRT controller; the data port is the next one.
pub(crate) const DISPLAY_PORT: u16 = 0x3d4;

/// Answers at [`DISPLAY_PORT`] for kernels that print to a display without probing for one. They read the cursor
/// position, and the all-ones of an empty port are not a position on the screen: xv6 panics. A kernel that probes
/// writes to a register, and does not read back what it wrote.
pub(crate) struct NoDisplay;

impl Device for NoDisplay {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Option<Stop> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_is_at_the_start_and_nothing_is_kept() {
        let mut data = [0xff];
        assert_eq!(NoDisplay.write(0, &[0x0f]), None);
        assert_eq!(NoDisplay.write(1, &[0x55]), None);
        NoDisplay.read(1, &mut data);
        assert_eq!(data, [0]);
    }
}
