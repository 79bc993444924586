//! The memory map that the guest receives, in the terms of INT 15h, AX=E820h (ACPI 6.5, 15.1), which Linux and
//! Multiboot share.

use std::ops::Range;

use crate::machine::boot::layout::{EBDA, HIGH_MEMORY};
use crate::machine::memory::Memory;

/// The use of a range, by its number in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// RAM in ascending order, and the reserved range below 1 MiB that contains firmware's tables.
pub(super) fn memory_map(memory: &Memory) -> Vec<(Range<u64>, Kind)> {
    let mut map = Vec::new();
    for (start, size) in memory.ram() {
        let end = start + size;
        map.push((start..end.min(EBDA.max(start)), Kind::Ram));
        if start < EBDA && end > EBDA {
            map.push((EBDA..HIGH_MEMORY, Kind::Reserved));
        }
        map.push((start.max(HIGH_MEMORY)..end, Kind::Ram));
    }
    map.retain(|(range, _)| !range.is_empty());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_memory_and_the_hole_below_4_gib_are_left_out() {
        let low = [(0..0x9_fc00, Kind::Ram), (0x9_fc00..0x10_0000, Kind::Reserved)];
        let map = |size| memory_map(&Memory::new(size).unwrap());
        assert_eq!(map(2 << 20), [&low[..], &[(0x10_0000..0x20_0000, Kind::Ram)]].concat());
        let high = [(0x10_0000..0xc000_0000, Kind::Ram), (1 << 32..0x1_8000_0000, Kind::Ram)];
        assert_eq!(map(5 << 30), [&low[..], &high].concat());
        assert_eq!(map(0x8_0000), [(0..0x8_0000, Kind::Ram)]);
    }
}
