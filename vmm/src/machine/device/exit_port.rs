//! The port through which a guest ends its VM, as QEMU's isa-debug-exit.

use super::Device;
use crate::machine::stop::Stop;

/// A write of `v` ends the VM with status `(v << 1) | 1`.
pub(crate) struct ExitPort;

impl Device for ExitPort {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) -> Option<Stop> {
        let value = data.iter().rev().fold(0u32, |value, byte| (value << 8) | u32::from(*byte));
        Some(Stop::Exit { status: (value << 1) | 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_isa_debug_exit() {
        let exit = |data: &[u8]| ExitPort.write(0, data);
        assert_eq!(exit(&[0]), Some(Stop::Exit { status: 1 }));
        assert_eq!(exit(&[0x10]), Some(Stop::Exit { status: 0x21 }));
        assert_eq!(exit(&[0x34, 0x12, 0, 0]), Some(Stop::Exit { status: 0x2469 }));
    }
}
