//! No file makes the loader panic or hang: good images with random damage, from a fixed seed.

#![expect(clippy::cast_possible_truncation, reason = "64-bit hosts only")]

use super::{Files, images, load};
use crate::machine::config::ProtocolChoice;
use crate::machine::memory::Memory;

/// Damaged images for each good one and protocol.
const ROUNDS: u32 = 500;

/// Values that often expose errors in loaders.
const EDGES: [u64; 8] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, u64::MAX - 4095, u64::MAX];

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Makes one to four changes: a flipped bit, an edge value written over a field, a part removed or duplicated.
    fn damage(&mut self, image: &mut Vec<u8>) {
        // Most fields are near the beginning.
        let reach = if self.below(4) == 0 { image.len() } else { image.len().min(0x280) };
        for _ in 0..=self.below(4) {
            let at = self.below(reach.min(image.len()));
            match self.below(8) {
                0 => image.truncate(at),
                1 => image.extend_from_within(at..),
                2..=4 => image.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                _ => {
                    let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.below(4)];
                    image.iter_mut().skip(at / width * width).zip(&edge[..width]).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

#[test]
fn no_damage_makes_the_loader_panic() {
    let good = [
        images::bzimage(),
        images::elf64_with_notes(
            &[(images::ENTRY, 0x1000), (0x20_0000, 0x3000)],
            &[(b"vector14\0", 1, &[1; 8]), (b"Linux\0", 0x101, &[0; 4])],
        ),
        images::multiboot_elf32(3),
        images::multiboot_flat(images::FLAT),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut loaded = 0;
    let files = Files::new();
    for image in &good {
        for protocol in ProtocolChoice::ALL {
            for _ in 0..ROUNDS {
                let mut image = image.clone();
                random.damage(&mut image);
                let memory = Memory::new(4 << 20).unwrap();
                loaded += u32::from(load(&files.boot(&image, protocol), &memory).is_ok());
            }
        }
    }
    // Some damage is harmless, and some is not.
    let total = ROUNDS * 16;
    assert!((total / 20..total - total / 20).contains(&loaded), "{loaded} of {total} load");
}
