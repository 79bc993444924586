//! The stub: the few bytes of guest code that gate 14 is pointed at, and where they find room.

use vector14_hook::{GuestError, Pa, Va};

use crate::guest::read_virtual;
use crate::memory::Memory;
use vector14_hook::paging::Paging;

/// The port that the stub writes to. No PC device answers there.
pub(super) const FAULT_PORT: u8 = 0xe4;

/// Length of `out imm8, al`.
pub(super) const OUT_LENGTH: u64 = 2;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const OUT_ADD_IRETQ: [u8; 8] = [0xe6, FAULT_PORT, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf];

/// What compilers and linkers fill code with where none belongs: int3.
const FILLER: u8 = 0xcc;
/// A run of filler has to be so long to be taken: the padding between two functions is shorter.
const ROOM: usize = 32;
/// The stub stands so far into the run.
const MARGIN: u64 = 16;
/// Filler is looked for so far from the handler, in bytes, near first, and not beyond the page that maps the handler.
const REACH: [u64; 3] = [4 << 10, 64 << 10, 2 << 20];

/// The stub of one original handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// The handler that the guest chose, which a reinjected fault goes to.
    pub(super) handler: Va,
    /// Where the stub begins.
    pub(super) start: Va,
    /// The same place in guest-physical memory.
    pub(super) physical: Pa,
    code: Code,
}

/// Bytes of a stub: 8 or 12 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Code {
    bytes: [u8; 12],
    length: usize,
}

impl Code {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Why there is no place for a stub.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("its handler at {handler} can't be read: {source}")]
    Handler { handler: Va, source: GuestError },
    #[error(
        "there is no run of {ROOM} bytes of 0xcc filler within {reach} KiB of its handler at {handler}, inside of the \
         page that maps it; {named}"
    )]
    NoFiller { handler: Va, reach: u64, named: NoNamedPlace },
}

/// Why the place that the user names is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoNamedPlace {
    #[error("name a place for the stub: intercept.stub = \"0x...\"")]
    None,
    #[error("and intercept.stub = {0} is taken by the stub of another handler")]
    Taken(Va),
    #[error("and intercept.stub = {0} crosses a page")]
    CrossesPage(Va),
    #[error("and intercept.stub = {place} can't be used: {source}")]
    Unusable { place: Va, source: GuestError },
}

impl Stub {
    /// Writes a stub for `handler` into guest memory: at `named` where that can be used, else into filler near the
    /// handler. `taken` are the stubs that stand already.
    pub(super) fn place(
        memory: &Memory,
        paging: &Paging,
        handler: Va,
        named: Option<Va>,
        taken: &[Self],
    ) -> Result<Self, NoRoom> {
        let mut head = [0; 4];
        read_virtual(memory, paging, handler, &mut head).map_err(|source| NoRoom::Handler { handler, source })?;
        let code = Self::assemble(head == ENDBR64);
        let at_named =
            named.ok_or(NoNamedPlace::None).and_then(|place| Self::write(memory, paging, handler, place, code, taken));
        at_named.or_else(|named| {
            let (place, reach) = find_filler(memory, paging, handler)?;
            let no_filler = || NoRoom::NoFiller { handler, reach: reach >> 10, named };
            let place = place.ok_or_else(no_filler)?;
            // Filler is readable, unique to this handler, and inside of one page.
            Self::write(memory, paging, handler, place, code, taken).map_err(|named| NoRoom::NoFiller {
                handler,
                reach: reach >> 10,
                named,
            })
        })
    }

    fn write(
        memory: &Memory,
        paging: &Paging,
        handler: Va,
        start: Va,
        code: Code,
        taken: &[Self],
    ) -> Result<Self, NoNamedPlace> {
        if taken.iter().any(|stub| stub.contains(start) || stub.contains(start.offset(code.length as u64 - 1))) {
            return Err(NoNamedPlace::Taken(start));
        }
        let unusable = |source| NoNamedPlace::Unusable { place: start, source };
        let leaf = paging.translate(start, |slot| memory.load(slot)).map_err(unusable)?;
        if (start.0 & (leaf.page_size - 1)) + code.length as u64 > leaf.page_size {
            return Err(NoNamedPlace::CrossesPage(start));
        }
        memory.write(leaf.address, code.bytes()).map_err(unusable)?;
        Ok(Self { handler, start, physical: leaf.address, code })
    }

    fn assemble(endbr64: bool) -> Code {
        let head = if endbr64 { ENDBR64.len() } else { 0 };
        let mut code = Code { bytes: [0; 12], length: head + OUT_ADD_IRETQ.len() };
        code.bytes[..head].copy_from_slice(&ENDBR64[..head]);
        code.bytes[head..code.length].copy_from_slice(&OUT_ADD_IRETQ);
        code
    }

    /// Where its OUT is.
    pub(super) fn out(&self) -> Va {
        self.start.offset((self.code.length - OUT_ADD_IRETQ.len()) as u64)
    }

    /// Whether `address` is inside of the stub.
    pub(super) fn contains(&self, address: Va) -> bool {
        address.0.wrapping_sub(self.start.0) < self.code.length as u64
    }

    /// Whether its bytes are where they were written, and mapped there.
    pub(super) fn is_intact(&self, memory: &Memory, paging: &Paging) -> bool {
        let mut bytes = [0; 12];
        let bytes = &mut bytes[..self.code.length];
        let mapped =
            paging.translate(self.start, |slot| memory.load(slot)).is_ok_and(|leaf| leaf.address == self.physical);
        mapped && memory.read(self.physical, bytes).is_ok() && bytes == self.code.bytes()
    }
}

/// The run of filler that is nearest to `handler`, inside of the leaf page that maps it, and how far was looked, in bytes.
fn find_filler(memory: &Memory, paging: &Paging, handler: Va) -> Result<(Option<Va>, u64), NoRoom> {
    let unreadable = |source| NoRoom::Handler { handler, source };
    let leaf = paging.translate(handler, |slot| memory.load(slot)).map_err(unreadable)?;
    let in_leaf = handler.0 & (leaf.page_size - 1);
    let mut looked = 0;
    for reach in REACH {
        let (below, above) = (in_leaf.min(reach), (leaf.page_size - in_leaf).min(reach));
        looked = below.max(above);
        let mut code = vec![0; usize::try_from(below + above).unwrap_or_default()];
        memory.read(Pa(leaf.address.0 - below), &mut code).map_err(unreadable)?;
        if let Some(place) = nearest_room(&code, handler.0 - below, handler) {
            return Ok((Some(place), looked));
        }
    }
    Ok((None, looked))
}

/// Where a stub goes into the run of filler in `code` that is nearest to `handler`; `first` is the address of its first byte.
fn nearest_room(code: &[u8], first: u64, handler: Va) -> Option<Va> {
    let mut nearest: Option<Va> = None;
    let mut start = 0;
    for end in 0..=code.len() {
        if code.get(end) == Some(&FILLER) {
            continue;
        }
        if end - start >= ROOM {
            let (from, to) = (first + start as u64, first + end as u64);
            // Below the handler the end of a run is its near side, above it the beginning is; either way the stub keeps
            // its distance from the code that is there.
            let place = Va(if from < handler.0 { to - ROOM as u64 } else { from } + MARGIN);
            if nearest.is_none_or(|other| place.0.abs_diff(handler.0) < other.0.abs_diff(handler.0)) {
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

    use super::*;
    use vector14_hook::paging::Mode;

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };

    /// Memory whose first 2 MiB are mapped at 0 by one leaf; its code is NOPs but for what `runs` fill.
    fn code(runs: &[(u64, usize)]) -> Memory {
        let memory = Memory::new(4 << 20).unwrap();
        for (slot, entry) in [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83)] {
            memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
        }
        memory.write(Pa(0x4000), &vec![0x90; 0x1f_c000]).unwrap();
        for (start, length) in runs {
            memory.write(Pa(*start), &vec![FILLER; *length]).unwrap();
        }
        memory
    }

    fn place(memory: &Memory, handler: u64) -> Result<Stub, NoRoom> {
        Stub::place(memory, &PAGING, Va(handler), None, &[])
    }

    #[test]
    fn the_nearest_run_that_is_long_enough_is_taken() {
        let memory = code(&[(0x8000, 400), (0x1_0000, ROOM), (0x1_0a00, ROOM - 1), (0x4_0000, 64)]);
        assert_eq!(place(&memory, 0x1_0b00).unwrap().start, Va(0x1_0010));
        assert_eq!(place(&memory, 0x3_ff00).unwrap().start, Va(0x4_0010));
        assert_eq!(place(&memory, 0x8800).unwrap().start, Va(0x8000 + 400 - 16));
    }

    #[test]
    fn a_handler_with_endbr64_gets_a_stub_with_one() {
        let memory = code(&[(0x8000, 64), (0x9000, 64)]);
        memory.write(Pa(0x8100), &ENDBR64).unwrap();
        let with = place(&memory, 0x8100).unwrap();
        let mut bytes = [0; 12];
        memory.read(with.physical, &mut bytes).unwrap();
        assert_eq!(bytes, [0xf3, 0x0f, 0x1e, 0xfa, 0xe6, FAULT_PORT, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf]);
        assert_eq!(with.out(), with.start.offset(4));
        let without = place(&memory, 0x9100).unwrap();
        assert_eq!(without.out(), without.start);
    }

    #[test]
    fn where_nothing_fits_the_error_says_what_was_looked_at() {
        let error = place(&code(&[(0x8000, ROOM - 1)]), 0x8100).unwrap_err().to_string();
        assert!(error.contains("0x8100") && error.contains("32 bytes") && error.contains("intercept.stub"), "{error}");
        let unmapped = place(&code(&[]), 0x40_0000).unwrap_err().to_string();
        assert!(unmapped.contains("0x400000 is not mapped"), "{unmapped}");
    }

    #[test]
    fn a_named_place_comes_before_filler_where_it_can_be_used() {
        let named = |place, taken: &[Stub]| {
            Stub::place(&code(&[(0x8000, 64)]), &PAGING, Va(0x8100), Some(Va(place)), taken).unwrap()
        };
        let stub = named(0xa000, &[]);
        assert_eq!(stub.start, Va(0xa000));
        assert_eq!(named(0xa000, &[stub]).start, Va(0x8030), "it is taken");
        assert_eq!(named(0x40_0000, &[]).start, Va(0x8030), "it is not mapped");
    }

    #[test]
    fn where_neither_can_be_used_both_are_named() {
        let memory = code(&[]);
        let error = Stub::place(&memory, &PAGING, Va(0x8100), Some(Va(0x40_0000)), &[]).unwrap_err().to_string();
        assert!(error.contains("no run of 32 bytes") && error.contains("intercept.stub = 0x400000"), "{error}");
    }
}
