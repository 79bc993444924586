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

/// Two devices want the same addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device for addresses {wanted:#x?} overlaps the one at {taken:#x?}")]
pub(crate) struct Overlap {
    wanted: Range<u64>,
    taken: Range<u64>,
}

struct Attached {
    range: Range<u64>,
    device: Mutex<Box<dyn Device>>,
}

impl Bus {
    /// Attaches `device` at `range`.
    ///
    /// # Errors
    /// [`Overlap`]; the device is not attached.
    pub(crate) fn attach(&mut self, range: Range<u64>, device: Box<dyn Device>) -> Result<(), Overlap> {
        let overlaps = |other: &&Attached| other.range.start < range.end && range.start < other.range.end;
        if let Some(other) = self.devices.iter().find(overlaps) {
            return Err(Overlap { wanted: range, taken: other.range.clone() });
        }
        self.devices.push(Attached { range, device: Mutex::new(device) });
        Ok(())
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
        bus.attach(0x10..0x12, Box::new(Register(7))).unwrap();
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

    #[test]
    fn devices_do_not_overlap() {
        let mut bus = Bus::default();
        bus.attach(0x10..0x12, Box::new(Register(7))).unwrap();
        for wanted in [0x10..0x12, 0x11..0x20, 0..0x11, 0..0x20, 0x10..0x11] {
            let refused = bus.attach(wanted.clone(), Box::new(Register(1)));
            assert_eq!(refused, Err(Overlap { wanted, taken: 0x10..0x12 }));
        }
        bus.attach(0x12..0x13, Box::new(Register(1))).unwrap();
        bus.attach(0xf..0x10, Box::new(Register(1))).unwrap();
    }
}
