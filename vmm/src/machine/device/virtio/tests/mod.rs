//! Devices as a driver sees them: through their registers, with queues in plain guest memory.

mod good;
mod hostile;

use std::io::Write;

use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::image::Image;
use super::{Backend, Block, Entropy, Mmio};
use crate::machine::config::DiskConfig;
use crate::machine::device::Device;
use crate::sys::ram::{self, Backing, GuestRam};

/// Guest memory, in bytes.
const MEMORY: u64 = 1 << 20;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x1_0000;
const SIZE: u16 = 8;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// ACKNOWLEDGE, DRIVER, FEATURES_OK; then DRIVER_OK; and DEVICE_NEEDS_RESET.
const STARTED: u32 = 1 | 2 | 8;
const OK: u32 = STARTED | 4;
const BROKEN: u32 = 64;

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

struct Driver {
    device: Mmio,
    memory: GuestRam,
    interrupt: EventFd,
    available: u16,
}

impl Driver {
    /// A driver that has not started yet.
    fn new(backend: Box<dyn Backend>) -> Self {
        let memory = ram::map(&[(0, MEMORY, Backing::Small)]).unwrap();
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let device = Mmio::new(backend, memory.clone(), interrupt.try_clone().unwrap());
        Self { device, memory, interrupt, available: 0 }
    }

    fn entropy() -> Self {
        Self::new(Box::new(Entropy))
    }

    /// A disk with `sectors` sectors, each filled with its number.
    fn disk(sectors: u8, readonly: bool) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        (0..sectors).for_each(|sector| file.write_all(&[sector; 512]).unwrap());
        let disk = DiskConfig { path: file.path().to_owned(), readonly };
        Self::new(Box::new(Block::new(Image::open(&disk).unwrap().lock().unwrap(), 3)))
    }

    fn get(&mut self, register: u32) -> u32 {
        let mut data = [0xff; 4];
        self.device.read(u64::from(register), &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u32, value: u32) {
        assert_eq!(self.device.write(u64::from(register), &value.to_le_bytes()), None);
    }

    /// Initialises the device up to the queue (virtio 1.2, 3.1.1), with all features that it offers.
    fn start(mut self) -> Self {
        self.set(VIRTIO_MMIO_STATUS, 0);
        self.set(VIRTIO_MMIO_STATUS, 1);
        self.set(VIRTIO_MMIO_STATUS, 1 | 2);
        for half in [0, 1] {
            self.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            let features = self.get(VIRTIO_MMIO_DEVICE_FEATURES);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, features);
        }
        self.set(VIRTIO_MMIO_STATUS, STARTED);
        self
    }

    fn queue(&mut self, size: u32, [descriptors, available, used]: [u64; 3]) {
        self.set(VIRTIO_MMIO_QUEUE_SEL, 0);
        self.set(VIRTIO_MMIO_QUEUE_NUM, size);
        let registers = [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, available),
            (VIRTIO_MMIO_QUEUE_USED_LOW, used),
        ];
        for (register, address) in registers {
            self.set(register, u32::try_from(address & 0xffff_ffff).unwrap());
            self.set(register + 4, u32::try_from(address >> 32).unwrap());
        }
        self.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// Initialises the device completely.
    fn run(self) -> Self {
        let mut this = self.start();
        this.queue(u32::from(SIZE), [DESCRIPTORS, AVAILABLE, USED]);
        this.set(VIRTIO_MMIO_STATUS, OK);
        assert_eq!((this.get(VIRTIO_MMIO_STATUS), this.get(VIRTIO_MMIO_QUEUE_READY)), (OK, 1));
        this
    }

    fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn take<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    fn describe(&self, table: u64, descriptors: &[Descriptor]) {
        for (index, (address, length, flags, next)) in (0u64..).zip(descriptors) {
            let at = table + 16 * index;
            self.put(at, *address);
            self.put(at + 8, *length);
            self.put(at + 12, *flags);
            self.put(at + 14, *next);
        }
    }

    /// Makes the chain at descriptor `head` available, and notifies the device.
    fn offer(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + 2 * u64::from(self.available % SIZE), head);
        self.available = self.available.wrapping_add(1);
        self.put(AVAILABLE + 2, self.available);
        self.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    }

    /// Sends `descriptors` as one chain. Returns how many bytes the device reports as written, if it has used the
    /// chain.
    fn send(&mut self, descriptors: &[Descriptor]) -> Option<u32> {
        let before: u16 = self.take(USED + 2);
        self.describe(DESCRIPTORS, descriptors);
        self.offer(0);
        let after: u16 = self.take(USED + 2);
        (after == before.wrapping_add(1)).then(|| self.take(USED + 4 + 8 * u64::from(before % SIZE) + 4))
    }

    /// Sends a disk request. `data` is the length of its data, and `flags` says whether the device writes it. Returns
    /// the status byte, and the used length.
    fn request(&mut self, kind: u32, sector: u64, data: u32, flags: u16) -> (u8, Option<u32>) {
        self.put(BUFFERS, kind);
        self.put(BUFFERS + 8, sector);
        let status = BUFFERS + 16;
        self.put(status, 0xffu8);
        let used =
            self.send(&[(BUFFERS, 16, NEXT, 1), (BUFFERS + 0x1000, data, NEXT | flags, 2), (status, 1, WRITE, 0)]);
        (self.take(status), used)
    }

    fn interrupted(&self) -> bool {
        self.interrupt.read().is_ok()
    }
}
