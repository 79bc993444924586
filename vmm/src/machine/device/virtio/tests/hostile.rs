//! Hostile drivers: the device sets DEVICE_NEEDS_RESET, works again after a reset, and nothing else happens.

use super::*;

/// A valid disk request, so that only what is put before it is wrong.
const TAIL: Descriptor = (BUFFERS + 0x2000, 1, WRITE, 0);

/// Checks that the device is broken, that its driver was told, and that a reset repairs it.
#[track_caller]
fn broken(mut driver: Driver, name: &str) {
    assert_eq!(driver.get(VIRTIO_MMIO_STATUS) & BROKEN, BROKEN, "{name}");
    if driver.get(VIRTIO_MMIO_STATUS) & OK == OK {
        assert!(driver.interrupted() && driver.get(VIRTIO_MMIO_INTERRUPT_STATUS) & 2 != 0, "{name}");
    }
    // The broken device does nothing that it is asked for.
    let used: u16 = driver.take(USED + 2);
    driver.offer(0);
    assert_eq!(driver.take::<u16>(USED + 2), used, "{name}");

    driver.set(VIRTIO_MMIO_STATUS, 0);
    assert_eq!((driver.get(VIRTIO_MMIO_STATUS), driver.get(VIRTIO_MMIO_QUEUE_READY)), (0, 0), "{name}");
    driver.memory.write_slice(&[0; 0x4000], GuestAddress(0)).unwrap();
    driver.available = 0;
    let mut driver = driver.run();
    assert_eq!(driver.request(0, 0, 512, WRITE), (0, Some(513)), "{name}");
}

#[test]
fn chains_that_are_none() {
    let end = MEMORY - 1;
    let cases: [(&str, u16, &[Descriptor]); 17] = [
        ("a chain that is its own next", 0, &[(BUFFERS, 16, NEXT, 0)]),
        ("a loop of two", 0, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, 0)]),
        ("a head outside of the table", SIZE, &[TAIL]),
        ("a head far outside of the table", u16::MAX, &[TAIL]),
        ("a next outside of the table", 0, &[(BUFFERS, 16, NEXT, SIZE), TAIL]),
        ("a buffer outside of memory", 0, &[(MEMORY, 16, NEXT, 1), TAIL]),
        ("a buffer that leaves memory", 0, &[(end, 2, NEXT, 1), TAIL]),
        ("a buffer in the hole", 0, &[(0xd000_0000, 16, NEXT, 1), TAIL]),
        ("a buffer at the end of addresses", 0, &[(u64::MAX, 16, NEXT, 1), TAIL]),
        ("a buffer of 4 GiB", 0, &[(BUFFERS, u32::MAX, NEXT, 1), TAIL]),
        ("a status outside of memory", 0, &[(BUFFERS, 16, NEXT, 1), (MEMORY, 1, WRITE, 0)]),
        ("buffers in the wrong order", 0, &[(BUFFERS, 16, NEXT | WRITE, 1), (BUFFERS, 16, 0, 0)]),
        ("no status", 0, &[(BUFFERS, 16, 0, 0)]),
        ("an empty status", 0, &[(BUFFERS, 16, NEXT, 1), (BUFFERS, 0, WRITE, 0)]),
        ("a header that is too short", 0, &[(BUFFERS, 15, NEXT, 1), TAIL]),
        ("an indirect table outside of memory", 0, &[(MEMORY, 32, INDIRECT, 0)]),
        ("an indirect table in itself", 0, &[(DESCRIPTORS, 16, INDIRECT, 0)]),
    ];
    for (name, head, descriptors) in cases {
        let mut driver = Driver::disk(2, false).run();
        driver.describe(DESCRIPTORS, descriptors);
        driver.offer(head);
        assert_eq!(driver.take::<u16>(USED + 2), 0, "{name}");
        broken(driver, name);
    }
}

/// An indirect table may have up to 65,535 descriptors. No more of them are read than a queue has.
#[test]
fn a_chain_longer_than_a_queue() {
    let mut driver = Driver::disk(2, false).run();
    let table: Vec<_> = (1..=2000).map(|next| (BUFFERS, 16, NEXT, next)).collect();
    driver.describe(0x2_0000, &table);
    driver.describe(DESCRIPTORS, &[(0x2_0000, 16 * 2000, INDIRECT, 0)]);
    driver.offer(0);
    broken(driver, "a long indirect table");
}

#[test]
fn queues_that_are_none() {
    let good = [DESCRIPTORS, AVAILABLE, USED];
    let cases = [
        ("no size", 0, good),
        ("a size that is not a power of two", 7, good),
        ("a queue larger than the device's", 256, good),
        ("an absurd size", u32::MAX, good),
        ("a size whose low half is good", 0x1_0008, good),
        ("misaligned descriptors", 8, [DESCRIPTORS + 8, AVAILABLE, USED]),
        ("a misaligned available ring", 8, [DESCRIPTORS, AVAILABLE + 1, USED]),
        ("a misaligned used ring", 8, [DESCRIPTORS, AVAILABLE, USED + 2]),
        ("descriptors outside of memory", 8, [MEMORY, AVAILABLE, USED]),
        ("descriptors that leave memory", 8, [MEMORY - 64, AVAILABLE, USED]),
        ("an available ring outside of memory", 8, [DESCRIPTORS, 0xd000_0000, USED]),
        ("a used ring at the end of addresses", 8, [DESCRIPTORS, AVAILABLE, !3]),
    ];
    for (name, size, addresses) in cases {
        let mut driver = Driver::disk(2, false).start();
        driver.queue(size, addresses);
        assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_READY), 0, "{name}");
        broken(driver, name);
    }
}

#[test]
fn more_chains_than_a_queue_holds() {
    let mut driver = Driver::disk(2, false).run();
    driver.put(AVAILABLE + 2, SIZE + 1);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    broken(driver, "an available index that is ahead by more than a queue");
}

#[test]
fn notifications_out_of_turn_are_ignored() {
    let mut driver = Driver::entropy();
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!((driver.get(VIRTIO_MMIO_STATUS), driver.get(VIRTIO_MMIO_QUEUE_READY)), (0, 0));
    let mut driver = driver.start();
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    let mut driver = driver.run();
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, u32::MAX);
    assert_eq!(driver.get(VIRTIO_MMIO_STATUS), OK);
}

/// Rings that overlap each other, and buffers that overlap rings: invalid, but all of it is the guest's own memory.
#[test]
fn rings_that_overlap_are_survived() {
    for addresses in [[0x1000; 3], [0x1000, 0x1000, 0x1004], [0x1000, 0x1010, 0x1020]] {
        let mut driver = Driver::entropy().start();
        driver.queue(8, addresses);
        driver.set(VIRTIO_MMIO_STATUS, OK);
        driver.describe(0x1000, &[(0x1000, 0x100, WRITE, 0); 8]);
        for index in 0..2000u16 {
            driver.put(addresses[1] + 2, index);
            driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        }
    }
}

/// A xorshift generator with a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    fn address(&mut self) -> u64 {
        let near = self.below(MEMORY);
        self.of(&[near, near & !0xfff, DESCRIPTORS, AVAILABLE, USED, BUFFERS, MEMORY - 8, MEMORY, u64::MAX, 1 << 32])
    }

    fn word(&mut self) -> u32 {
        let any = u32::try_from(self.next() >> 32).unwrap();
        self.of(&[0, 1, 4, 8, 15, 16, 512, 1024, 0xffff_ffff, any])
    }
}

/// Random operations, half of them on a working device: every step must return, and the device must work after a reset.
#[test]
fn nonsense_of_all_kinds_is_survived() {
    let mut random = Random(0x1425_3647_5869_7a8b);
    for round in 0..400 {
        let disk = random.below(2) == 0;
        let mut driver = if disk { Driver::disk(16, false) } else { Driver::entropy() };
        if random.below(4) > 0 {
            driver = driver.run();
        }
        for _ in 0..60 {
            step(&mut driver, &mut random);
        }
        driver.memory.write_slice(&[0; 0x4000], GuestAddress(0)).unwrap();
        driver.available = 0;
        let mut driver = driver.run();
        let used = if disk { driver.request(0, 1, 512, WRITE).1 } else { driver.send(&[(BUFFERS, 8, WRITE, 0)]) };
        assert_eq!(used, Some(if disk { 513 } else { 8 }), "round {round}");
    }
}

fn step(driver: &mut Driver, random: &mut Random) {
    match random.below(6) {
        0 => {
            let register = u32::try_from(random.below(0x48) * 4).unwrap();
            let value = random.word();
            driver.set(register, value);
        }
        1 => {
            let (offset, length) = (random.below(0x1000), random.below(9));
            let mut data = [0x55; 8];
            let data = &mut data[..usize::try_from(length).unwrap()];
            driver.device.read(offset, data);
            assert_eq!(driver.device.write(offset, data), None);
        }
        2..4 => {
            let kind = random.of(&[0u32, 1, 4, 8, 11]);
            driver.put(BUFFERS, kind);
            driver.put(BUFFERS + 8, random.below(20));
            for index in 0..u64::from(SIZE) {
                let flags = random.of(&[0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, 0xffff]);
                let next = u16::try_from(random.below(10)).unwrap();
                let descriptor = (random.address(), random.word(), flags, next);
                driver.describe(DESCRIPTORS + 16 * index, &[descriptor]);
            }
        }
        4 => {
            let head = u16::try_from(random.below(u64::from(SIZE) + 1)).unwrap();
            driver.offer(head);
        }
        _ => {
            let address = random.address() % (MEMORY - 8);
            driver.put(address, random.next());
            driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        }
    }
}
