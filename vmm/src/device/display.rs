//! The place of a colour display's controller: there is no display, and the cursor is in its upper left corner.

use super::Device;
use crate::summary::Stop;

/// The index port of a colour display's CRT controller; the data port is the next one.
pub(crate) const DISPLAY_PORT: u16 = 0x3d4;

/// What a kernel finds at [`DISPLAY_PORT`] that prints to a display without looking for one. It reads where the cursor is,
/// and the ones of an empty port are no place on a screen: xv6 panics. A kernel that does look writes to a register, and
/// does not read back what it has written.
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
