//! Drivers that follow the specification.

use super::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

#[test]
fn a_device_says_what_it_is() {
    let mut disk = Driver::disk(3, false);
    let registers = [VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_VERSION, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_QUEUE_NUM_MAX];
    assert_eq!(registers.map(|register| disk.get(register)), [0x7472_6976, 2, 2, 128]);
    assert_eq!(disk.get(VIRTIO_MMIO_CONFIG), 3);
    let mut odd = [0xff; 2];
    disk.device.read(0x101, &mut odd);
    assert_eq!(odd, [0, 0]);
    disk.set(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(disk.get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    assert_eq!(disk.get(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    assert_eq!(Driver::entropy().get(VIRTIO_MMIO_DEVICE_ID), 4);
}

#[test]
fn entropy_is_different_every_time() {
    let mut driver = Driver::entropy().run();
    let mut get = || {
        assert_eq!(driver.send(&[(BUFFERS, 16, WRITE | NEXT, 1), (BUFFERS + 16, 16, WRITE, 0)]), Some(32));
        driver.take::<[u64; 4]>(BUFFERS)
    };
    let (first, second) = (get(), get());
    assert!(first.iter().chain(&second).all(|word| *word != 0) && first != second, "{first:x?} {second:x?}");
    assert_eq!(driver.send(&[(BUFFERS, 0x1000, WRITE, 0)]), Some(256));
    assert!(driver.interrupted());
    assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    driver.set(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

/// The entropy driver of Linux 5.10 makes its first request from its probe routine, before DRIVER_OK, and does not notify
/// the device again.
#[test]
fn a_request_made_before_driver_ok_is_served_at_driver_ok() {
    let mut driver = Driver::entropy().start();
    driver.queue(u32::from(SIZE), [DESCRIPTORS, AVAILABLE, USED]);
    assert_eq!(driver.send(&[(BUFFERS, 64, WRITE, 0)]), None);
    assert!(!driver.interrupted(), "nothing is used before DRIVER_OK (virtio 1.2, 3.1.1)");
    driver.set(VIRTIO_MMIO_STATUS, OK);
    assert_eq!(driver.take::<u16>(USED + 2), 1);
    assert_eq!(driver.take::<u32>(USED + 8), 64);
    assert!(driver.interrupted());
}

#[test]
fn what_is_written_to_a_disk_is_read_again() {
    let mut disk = Driver::disk(4, false).run();
    assert_eq!(disk.request(IN, 1, 1024, WRITE), (0, Some(1025)));
    assert_eq!(disk.take::<[u8; 2]>(BUFFERS + 0x1000 + 511), [1, 2]);
    disk.memory.write_slice(&[0xee; 1024], GuestAddress(BUFFERS + 0x1000)).unwrap();
    assert_eq!(disk.request(OUT, 2, 512, 0), (0, Some(1)));
    assert_eq!(disk.request(FLUSH, 0, 0, 0), (0, Some(1)));
    assert_eq!(disk.request(IN, 1, 1536, WRITE), (0, Some(1537)));
    assert_eq!(disk.take::<[u8; 2]>(BUFFERS + 0x1000 + 511), [1, 0xee]);
    assert_eq!(disk.take::<[u8; 2]>(BUFFERS + 0x1000 + 1023), [0xee, 3]);
    assert_eq!(disk.request(GET_ID, 0, 20, WRITE), (0, Some(21)));
    assert_eq!(&disk.take::<[u8; 12]>(BUFFERS + 0x1000), b"vector14-3\0\0");
}

/// A request may be split into buffers in any way (virtio 1.2, 2.7.4).
#[test]
fn a_request_in_pieces_is_a_request() {
    let mut disk = Driver::disk(2, false).run();
    disk.put(BUFFERS, IN);
    disk.put(BUFFERS + 8, 1u64);
    let pieces = [
        (BUFFERS, 9, NEXT, 1),
        (BUFFERS + 9, 7, NEXT, 2),
        (BUFFERS + 0x1000, 0, NEXT | WRITE, 3),
        (BUFFERS + 0x1000, 500, NEXT | WRITE, 4),
        (BUFFERS + 0x2000, 13, WRITE, 0),
    ];
    assert_eq!(disk.send(&pieces), Some(513));
    assert_eq!(disk.take::<[u8; 14]>(BUFFERS + 0x2000), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_request_that_can_not_be_met_fails_and_the_disk_goes_on() {
    let cases = [
        ("beyond the end", IN, 4, 512, WRITE, 1),
        ("across the end", IN, 3, 1024, WRITE, 1),
        ("a sector that overflows", IN, u64::MAX, 512, WRITE, 1),
        ("an offset that overflows", IN, u64::MAX / 512 + 1, 512, WRITE, 1),
        ("half a sector", IN, 0, 100, WRITE, 1),
        ("a write to a read-only disk", OUT, 0, 512, 0, 1),
        ("a type that there is not", 99, 0, 512, WRITE, 2),
    ];
    for (name, kind, sector, data, flags, status) in cases {
        let mut disk = Driver::disk(4, true).run();
        assert_eq!(disk.request(kind, sector, data, flags), (status, Some(1)), "{name}");
        assert_eq!(disk.request(IN, 0, 512, WRITE), (0, Some(513)), "{name}");
    }
}

#[test]
fn only_offered_features_are_agreed_on() {
    for (low, high, agreed) in [(0, 1, true), (1 << 9, 1, true), (0, 0, false), (1 << 31, 1, false), (1 << 5, 1, false)]
    {
        let mut disk = Driver::disk(1, false);
        for (half, features) in [(0, low), (1, high), (2, u32::MAX)] {
            disk.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            disk.set(VIRTIO_MMIO_DRIVER_FEATURES, features);
        }
        disk.set(VIRTIO_MMIO_STATUS, OK);
        assert_eq!(disk.get(VIRTIO_MMIO_STATUS), if agreed { OK } else { 1 | 2 }, "{low:#x} {high:#x}");
    }
}
