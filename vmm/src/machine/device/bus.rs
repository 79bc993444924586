//! The bus: address ranges, and the device at each. One type serves port I/O and MMIO.

use std::ops::Range;
use std::sync::Mutex;

use crate::machine::stop::Stop;
use crate::sys::lock;

/// A device with registers. Offsets are relative to the start of the range at which the device is attached.
pub trait Device: Send {
    /// The guest reads `data.len()` bytes. Bytes that the device does not write read as 0xff.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data`. `Some` ends the VM.
    fn write(&mut self, offset: u64, data: &[u8]) -> Option<Stop>;
}

/// Devices by address range.
#[derive(Default)]
pub(crate) struct Bus {
    devices: Vec<Attached>,
}

struct Attached {
    range: Range<u64>,
    device: Mutex<Box<dyn Device>>,
}

impl Bus {
    /// Attaches `device` at `range`. It takes precedence over devices that are already there.
    pub(crate) fn attach(&mut self, range: Range<u64>, device: Box<dyn Device>) {
        self.devices.insert(0, Attached { range, device: Mutex::new(device) });
    }

    /// Reads from the device at `address`. An address without a device reads as all ones.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(address) {
            lock(device).read(offset, data);
        }
    }

    /// Writes to the device at `address`. A write to an address without a device has no effect.
    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Option<Stop> {
        let (offset, device) = self.find(address)?;
        lock(device).write(offset, data)
    }

    fn find(&self, address: u64) -> Option<(u64, &Mutex<Box<dyn Device>>)> {
        let attached = self.devices.iter().find(|attached| attached.range.contains(&address))?;
        Some((address - attached.range.start, &attached.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register(u8);

    impl Device for Register {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            if offset == 0 {
                data[0] = self.0;
            }
        }
        fn write(&mut self, _offset: u64, data: &[u8]) -> Option<Stop> {
            self.0 = data[0];
            (self.0 == 0xaa).then_some(Stop::Reset)
        }
    }

    #[test]
    fn accesses_reach_the_device_of_their_range_only() {
        let mut bus = Bus::default();
        bus.attach(0x10..0x12, Box::new(Register(7)));
        let read = |address| {
            let mut data = [0; 2];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x10), [7, 0xff]);
        assert_eq!(read(0x11), [0xff, 0xff]);
        assert_eq!(read(0x12), [0xff, 0xff]);
        assert_eq!(bus.write(0x12, &[0xaa]), None);
        assert_eq!(bus.write(0x10, &[0xaa]), Some(Stop::Reset));
    }
}
