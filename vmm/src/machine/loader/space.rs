//! Which guest memory is taken while a kernel is being loaded, and by what.
//!
//! Everything is placed in the RAM below the hole: boot protocols map it, and 32-bit fields can address it.

use std::ops::Range;

use vector14_hook::PAGE_SIZE;

use super::error::LoadReason;
use crate::machine::boot::layout::{BDA_AND_GDT, EBDA, HIGH_MEMORY};
use crate::machine::memory::{HOLE_START, Memory};

/// Guest memory, and the ranges of it that are taken.
pub(super) struct Space<'a> {
    memory: &'a Memory,
    taken: Vec<(Range<u64>, &'static str)>,
}

impl<'a> Space<'a> {
    /// All of `memory`, without the ranges that are taken for every kernel.
    pub(super) fn new(memory: &'a Memory) -> Result<Self, LoadReason> {
        let taken = vec![(EBDA..HIGH_MEMORY, "the reserved range")];
        let mut space = Self { memory, taken };
        space.claim(BDA_AND_GDT, "the BIOS data area and the descriptor table")?;
        Ok(space)
    }

    pub(super) fn memory(&self) -> &'a Memory {
        self.memory
    }

    /// Takes `range`, which must be RAM and free.
    pub(super) fn claim(&mut self, range: Range<u64>, what: &'static str) -> Result<(), LoadReason> {
        if range.is_empty() {
            return Ok(());
        }
        let ram_end = self.ram_end();
        if range.end > HOLE_START {
            return Err(LoadReason::TooHigh { needs: range, hole: HOLE_START });
        }
        if range.end > ram_end {
            return Err(LoadReason::TooLarge { needs: range, ram_end });
        }
        if let Some((other, with)) = self.overlapping(&range) {
            return Err(LoadReason::Overlap { segment: range, with, other: other.clone() });
        }
        self.taken.push((range, what));
        Ok(())
    }

    /// Takes the highest free range of whole pages that has room for `size` bytes above 1 MiB and below `limit`.
    /// Returns the `size` bytes at its start.
    pub(super) fn allocate_high(&mut self, size: u64, limit: u64) -> Result<Range<u64>, LoadReason> {
        let to = limit.min(self.ram_end());
        let ends = self.taken.iter().map(|(taken, _)| taken.start).filter(|end| *end < to).chain([to]);
        let places = ends.filter_map(|end| self.free(end.checked_sub(size)? / PAGE_SIZE * PAGE_SIZE, size, to));
        let found = places.max_by_key(|range| range.start).filter(|range| range.start >= HIGH_MEMORY);
        self.take(found.ok_or(LoadReason::NoRoom { size, from: HIGH_MEMORY, to })?)
    }

    /// Takes the lowest free range of whole pages in `within` that has room for `size` bytes. Returns the `size` bytes
    /// at its start.
    pub(super) fn allocate_low(&mut self, size: u64, within: Range<u64>) -> Result<Range<u64>, LoadReason> {
        let (from, to) = (within.start, within.end.min(self.ram_end()));
        let starts = self.taken.iter().map(|(taken, _)| taken.end).filter(|start| *start > from).chain([from]);
        let places = starts.filter_map(|start| self.free(start.checked_next_multiple_of(PAGE_SIZE)?, size, to));
        let found = places.min_by_key(|range| range.start);
        self.take(found.ok_or(LoadReason::NoRoom { size, from, to })?)
    }

    /// The `size` bytes at `start`, if they are free and end no later than `limit`.
    fn free(&self, start: u64, size: u64, limit: u64) -> Option<Range<u64>> {
        let range = start..start.checked_add(size)?;
        (range.end <= limit && self.overlapping(&range).is_none()).then_some(range)
    }

    fn take(&mut self, range: Range<u64>) -> Result<Range<u64>, LoadReason> {
        let pages = range.start..range.end.next_multiple_of(PAGE_SIZE);
        self.taken.push((pages, "a file"));
        Ok(range)
    }

    fn overlapping(&self, range: &Range<u64>) -> Option<&(Range<u64>, &'static str)> {
        self.taken.iter().find(|(taken, _)| range.start < taken.end && taken.start < range.end)
    }

    /// End of the RAM below the hole.
    fn ram_end(&self) -> u64 {
        self.memory.ram().first().map_or(0, |(start, size)| start + size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_out_once_from_either_end() {
        let memory = Memory::new(2 << 20).unwrap();
        let mut space = Space::new(&memory).unwrap();
        space.claim(0x10_0000..0x10_1800, "a kernel").unwrap();
        assert_eq!(space.allocate_low(1, 0x10_1800..u64::MAX).unwrap(), 0x10_2000..0x10_2001);
        assert_eq!(space.allocate_low(0x1000, 0x10_1800..u64::MAX).unwrap(), 0x10_3000..0x10_4000);
        assert_eq!(space.allocate_high(1, u64::MAX).unwrap(), 0x1f_f000..0x1f_f001);
        assert_eq!(space.allocate_high(0x1001, 0x1f_f800).unwrap(), 0x1f_d000..0x1f_e001);
        assert!(space.allocate_high(0xf_a000, u64::MAX).is_err());
        assert!(space.allocate_high(1, 0x10_0000).is_err(), "conventional memory is left alone");
        assert!(space.allocate_low(u64::MAX, 0x10_0000..u64::MAX).is_err());
        assert_eq!(space.allocate_low(0x8_fc00, 0x1_0000..EBDA).unwrap(), 0x1_0000..EBDA);
        assert!(space.allocate_low(1, 0x1_0000..EBDA).is_err(), "nothing goes beyond the end that is asked for");
        assert!(space.claim(0x1f_e000..0x1f_f001, "a kernel").is_err());
    }
}
