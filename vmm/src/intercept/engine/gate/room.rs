//! Where a stub can go: guest memory that is executable, mapped wherever the handler is, and unused. In this order:
//!
//! 1. the range that the user or the kernel names;
//! 2. what the loader knows to be unused, inside the page that maps the handler;
//! 3. filler inside that page;
//! 4. unused memory in another page of the handler's 2 MiB, all of which one page table maps.
//!
//! Unused memory is taken only if guest memory still contains padding there. If all of this fails, `own_page` is the
//! fallback.

use std::ops::Range;

use vector14_hook::paging::{Paging, Translation};
use vector14_hook::{Access, GuestError, Pa, Va};

use super::padding;
use super::stub::{Stub, StubPlace};
use crate::intercept::config::STUB_STRIDE;
use crate::machine::memory::Memory;

/// Bytes that one last-level page table maps; with 32-bit paging it maps twice as much.
pub(super) const TABLE_SPAN: u64 = 2 << 20;

/// int3, which compilers and linkers put between functions.
const FILLER: u8 = 0xcc;
/// Maximum number of places to try in one range.
const PLACES: usize = 64;
/// Shortest run of filler to use, in bytes, in each pass. Long runs come first, because they are not just padding
/// between two functions.
const RUNS: [usize; 2] = [32, 16];
/// Distance in bytes that a stub keeps from the code beside a run, if the run is long enough.
const MARGIN: usize = 16;
/// Distances from the handler within which to look for filler, in bytes, nearest first.
const REACHES: [u64; 3] = [4 << 10, 64 << 10, 2 << 20];

/// What is known before the guest runs about where stubs can go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// The range that the user names, or else the one that the kernel names.
    pub(crate) named: Option<Range<Va>>,
    /// Memory that is unused according to the kernel's file.
    pub(crate) unused: Vec<Range<Pa>>,
}

/// There is no place for a stub.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no room for a stub near the handler at {handler}: no 16 bytes of 0xcc within {} KiB inside the page that maps it, \
     no padding in the kernel's file, and {}; name a range with intercept.stub = {{ start = 0x..., end = 0x... }}",
    .reach >> 10,
    .named.as_ref().map_or("no named range".to_owned(), |range| format!("nothing free and executable at {}..{}", range.start, range.end))
)]
pub(super) struct NoRoom {
    handler: Va,
    reach: u64,
    named: Option<Range<Va>>,
}

/// One search, for one handler.
pub(super) struct Search<'a> {
    pub(super) memory: &'a Memory,
    pub(super) paging: &'a Paging,
    pub(super) handler: Va,
    /// How the handler is mapped.
    pub(super) leaf: Translation,
    /// Length of the stub, in bytes.
    pub(super) length: usize,
    /// The stubs that exist already.
    pub(super) stubs: &'a [Stub],
}

impl Room {
    /// Finds the best place for a stub.
    pub(super) fn find(&self, search: &Search<'_>) -> Result<StubPlace, NoRoom> {
        let named = self.named.as_ref().and_then(|range| search.in_range(range));
        named
            .or_else(|| search.in_unused(&self.unused, search.leaf.page_size))
            .or_else(|| search.in_filler())
            .or_else(|| search.in_unused(&self.unused, TABLE_SPAN))
            .ok_or_else(|| NoRoom { handler: search.handler, reach: search.reach(), named: self.named.clone() })
    }
}

impl Search<'_> {
    /// The first free place in a range that is reserved for stubs.
    pub(super) fn in_range(&self, range: &Range<Va>) -> Option<StubPlace> {
        let places = (range.start.0..range.end.0).step_by(STUB_STRIDE).take(PLACES);
        places.take_while(|start| range.end.0 - start >= self.length as u64).find_map(|start| self.at(Va(start)))
    }

    /// The unused place nearest to the handler within its aligned `span` bytes. The place must be mapped at the same
    /// distance from its physical address as the handler.
    fn in_unused(&self, unused: &[Range<Pa>], span: u64) -> Option<StubPlace> {
        let window = self.handler.0 & !(span - 1);
        let linear = |at: u64| Va(self.handler.0.wrapping_add(at.wrapping_sub(self.leaf.address.0)));
        let places = unused.iter().flat_map(|range| {
            let last = range.end.0.saturating_sub(self.length as u64);
            (range.start.0..=last).step_by(STUB_STRIDE).take(PLACES).map(move |start| (range, start))
        });
        let near = places.filter(|(_, start)| linear(*start).0 & !(span - 1) == window);
        let mut near: Vec<_> = near.collect();
        near.sort_by_key(|(_, start)| start.abs_diff(self.leaf.address.0));
        near.into_iter().find_map(|(range, start)| {
            let place = self.at(linear(start)).filter(|place| place.physical == Pa(start))?;
            padding::is_padding(self.memory, self.paging, &(place.physical..range.end), self.length).then_some(place)
        })
    }

    /// A place in a run of filler: in a long run rather than a short one, and otherwise near the handler.
    fn in_filler(&self) -> Option<StubPlace> {
        RUNS.into_iter().flat_map(|least| REACHES.map(|reach| (least, reach))).find_map(|(least, reach)| {
            let (below, above) = self.within(reach);
            let mut code = vec![0; usize::try_from(below + above).ok()?];
            self.memory.read(Pa(self.leaf.address.0 - below), &mut code).ok()?;
            let index = nearest_room(&code, usize::try_from(below).ok()?, least, self.length)?;
            self.at(Va(self.handler.0 - below + index as u64))
        })
    }

    /// A place at `start`, if it is executable, in one page, and not taken by another stub.
    fn at(&self, start: Va) -> Option<StubPlace> {
        let length = self.length as u64;
        let leaf = self.paging.translate(start, |slot| self.memory.load(slot)).ok()?;
        let in_one_page = (start.0 & (leaf.page_size - 1)) + length <= leaf.page_size;
        let free = !self.stubs.iter().any(|stub| stub.contains(start) || stub.contains(start.offset(length - 1)));
        let usable = in_one_page && free && leaf.access.contains(Access::EXECUTE);
        usable.then_some(StubPlace { start, physical: leaf.address })
    }

    /// How many bytes of the handler's page lie below and above the handler, up to `reach` each.
    fn within(&self, reach: u64) -> (u64, u64) {
        let in_leaf = self.handler.0 & (self.leaf.page_size - 1);
        (in_leaf.min(reach), (self.leaf.page_size - in_leaf).min(reach))
    }

    /// How far from the handler to look for filler, in bytes.
    fn reach(&self) -> u64 {
        let [.., furthest] = REACHES;
        let (below, above) = self.within(furthest);
        below.max(above)
    }
}

/// How `handler` is mapped.
pub(super) fn leaf(memory: &Memory, paging: &Paging, handler: Va) -> Result<Translation, GuestError> {
    paging.translate(handler, |slot| memory.load(slot))
}

/// Where in `code` a stub of `length` bytes goes: into the run of at least `least` bytes of filler nearest to the
/// handler.
fn nearest_room(code: &[u8], handler: usize, least: usize, length: usize) -> Option<usize> {
    let mut nearest: Option<usize> = None;
    let mut start = 0;
    for end in 0..=code.len() {
        if code.get(end) == Some(&FILLER) {
            continue;
        }
        let run = end - start;
        if run >= least {
            let margin = ((run - length) / 2).min(MARGIN);
            // The near side of a run is its end if it is below the handler, and its beginning if it is above.
            let place = if start < handler { end - margin - length } else { start + margin };
            if nearest.is_none_or(|other| place.abs_diff(handler) < other.abs_diff(handler)) {
                nearest = Some(place);
            }
        }
        start = end + 1;
    }
    nearest
}

#[cfg(test)]
mod tests {
    use vector14_hook::Cr3;
    use vector14_hook::paging::Mode;

    use super::*;

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
    const LENGTH: usize = 8;

    /// Memory whose first 2 MiB are mapped twice, by one leaf at 0 and one at the end of the address space. Nothing
    /// in it is filler or padding, except for `runs`, which are filler.
    fn code(runs: &[(u64, usize)]) -> Memory {
        let memory = Memory::new(4 << 20).unwrap();
        let tables =
            [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83), (0x1ff8, 0x2003), (0x2ff8, 0x3003), (0x3ff8, 0x83)];
        for (slot, entry) in tables {
            memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
        }
        memory.write(Pa(0x4000), &vec![0x8b; 0x1f_c000]).unwrap();
        for (start, length) in runs {
            memory.write(Pa(*start), &vec![FILLER; *length]).unwrap();
        }
        memory
    }

    fn find(memory: &Memory, room: &Room, handler: u64) -> Result<Va, String> {
        let handler = Va(handler);
        let leaf = leaf(memory, &PAGING, handler).unwrap();
        let search = Search { memory, paging: &PAGING, handler, leaf, length: LENGTH, stubs: &[] };
        room.find(&search).map(|place| place.start).map_err(|error| error.to_string())
    }

    fn filler(memory: &Memory, handler: u64) -> Result<Va, String> {
        find(memory, &Room::default(), handler)
    }

    #[test]
    fn the_nearest_long_run_of_filler_is_taken_before_a_short_one() {
        let memory = code(&[(0x8000, 400), (0x1_0000, 32), (0x1_0a00, 31), (0x4_0000, 64)]);
        assert_eq!(filler(&memory, 0x1_0b00), Ok(Va(0x1_000c)));
        assert_eq!(filler(&memory, 0x3_ff00), Ok(Va(0x4_0010)));
        assert_eq!(filler(&memory, 0x8800), Ok(Va(0x8000 + 400 - 24)));
        assert_eq!(filler(&code(&[(0x8100, 16), (0x9000, 15)]), 0x9100), Ok(Va(0x8104)));
    }

    #[test]
    fn filler_in_the_last_page_of_the_address_space_is_room_like_any_other() {
        let memory = code(&[(0x1f_ffc0, 64)]);
        assert_eq!(filler(&memory, 0xffff_ffff_ffff_ff00), Ok(Va(0xffff_ffff_ffff_ffd0)));
    }

    #[test]
    fn a_named_range_comes_first_where_it_can_be_used() {
        let memory = code(&[(0x8000, 64)]);
        let named = |start, end| Room { named: Some(Va(start)..Va(end)), ..Room::default() };
        assert_eq!(find(&memory, &named(0xa000, 0xa010), 0x8100), Ok(Va(0xa000)));
        assert_eq!(find(&memory, &named(0xa000, 0xa007), 0x8100), Ok(Va(0x8028)), "the range is too short");
        assert_eq!(find(&memory, &named(0x40_0000, 0x40_0100), 0x8100), Ok(Va(0x8028)), "the range is not mapped");
    }

    #[test]
    fn unused_memory_is_taken_if_it_is_still_padding() {
        let memory = code(&[]);
        let room =
            |ranges: &[(u64, u64)]| Room { named: None, unused: ranges.iter().map(|(s, e)| Pa(*s)..Pa(*e)).collect() };
        memory.write(Pa(0xa000), &[0; 0x40]).unwrap();
        memory.write(Pa(0xb003), &[0x0f, 0x1f, 0x44, 0, 0, 0x66, 0x90, 0x90]).unwrap();
        assert_eq!(find(&memory, &room(&[(0xa000, 0xa040)]), 0x8100), Ok(Va(0xa000)));
        assert_eq!(find(&memory, &room(&[(0xa000, 0xa040)]), 0xa100), Ok(Va(0xa030)), "the nearest");
        assert_eq!(find(&memory, &room(&[(0xb003, 0xb00b)]), 0x8100), Ok(Va(0xb003)));
        assert_eq!(find(&memory, &room(&[(0x20_0000, 0x20_0040), (0xb003, 0xb00b)]), 0x8100), Ok(Va(0xb003)));
        for elsewhere in
            [(0xb000, 0xb00b), (0xb004, 0xb00c), (0xb003, 0xb00a), (0x20_0000, 0x20_0040), (0xc000, 0xb000)]
        {
            assert!(find(&memory, &room(&[elsewhere]), 0x8100).is_err(), "{elsewhere:x?}");
        }
    }

    #[test]
    fn another_page_of_the_same_table_is_the_last_resort() {
        let memory = code(&[]);
        memory.write(Pa(0x3000), &0x20_0003u64.to_le_bytes()).unwrap();
        for page in [0x8000, 0xa000, 0xb000u64] {
            memory.write(Pa(0x20_0000 + (page >> 9)), &(page | 3).to_le_bytes()).unwrap();
        }
        memory.write(Pa(0x20_0000 + (0xc000 >> 9)), &0xd003u64.to_le_bytes()).unwrap();
        for padding in [0xa000, 0xb000, 0xc000, 0xd000] {
            memory.write(Pa(padding), &[0; 0x40]).unwrap();
        }
        let room = |starts: &[u64]| Room {
            named: None,
            unused: starts.iter().map(|start| Pa(*start)..Pa(start + 8)).collect(),
        };
        assert_eq!(find(&memory, &room(&[0xb000, 0xa000]), 0x8100), Ok(Va(0xa000)));
        assert!(
            find(&memory, &room(&[0xc000, 0xd000]), 0x8100).is_err(),
            "neither is mapped at the handler's distance"
        );
        memory.write(Pa(0x8200), &[FILLER; 16]).unwrap();
        assert_eq!(find(&memory, &room(&[0xa000]), 0x8100), Ok(Va(0x8204)), "its own page comes first");
    }

    #[test]
    fn a_stub_needs_executable_memory() {
        let memory = code(&[]);
        memory.write(Pa(0x3000), &(0x83u64 | 1 << 63).to_le_bytes()).unwrap();
        let room = Room { named: Some(Va(0xa000)..Va(0xa100)), ..Room::default() };
        assert!(find(&memory, &room, 0x8100).is_err());
    }

    #[test]
    fn where_nothing_fits_the_error_says_what_was_looked_at() {
        let room = Room { named: Some(Va(0x40_0000)..Va(0x40_0100)), ..Room::default() };
        let error = find(&code(&[(0x8000, 15)]), &room, 0x8100).unwrap_err();
        for words in ["0x8100", "no 16 bytes of 0xcc within 2015 KiB", "0x400000..0x400100", "intercept.stub = { start"]
        {
            assert!(error.contains(words), "no `{words}` in: {error}");
        }
    }
}
