//! What the CPU pushed on the way through gate 14.

use std::sync::atomic::Ordering::Release;

use kvm_bindings::kvm_regs;
use vector14_hook::{ErrorCode, GuestError, PAGE_SIZE, Pa, Registers, Va};

use crate::engine::registers;
use crate::memory::Memory;
use crate::segment::is_local;
use vector14_hook::paging::Paging;

/// The frame of an exception with an error code, in 64-bit mode (SDM vol. 3A, 6.14.2; APM vol. 2, 8.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    place: Place,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    ss: u64,
}

const WORDS: usize = 6;

/// Where a frame is in guest-physical memory. The CPU aligns the stack before it pushes, so that each word lies in one page;
/// the frame as a whole can lie in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    first: Pa,
    /// How many words lie in the first page.
    in_first: usize,
    second: Pa,
}

impl Place {
    fn find(memory: &Memory, paging: &Paging, rsp: Va) -> Result<Self, GuestError> {
        let translate = |address| Ok(paging.translate(address, |slot| memory.load(slot))?.address);
        let first = translate(rsp)?;
        let left = (PAGE_SIZE - rsp.page_offset()) / 8;
        let in_first = usize::try_from(left).map_or(WORDS, |left| left.min(WORDS));
        let second = if in_first < WORDS { translate(rsp.page().offset(PAGE_SIZE))? } else { first };
        Ok(Self { first, in_first, second })
    }

    fn slots(self) -> impl Iterator<Item = Pa> {
        let slot = move |index: usize| match index.checked_sub(self.in_first) {
            None => self.first.offset(8 * index as u64),
            Some(index) => self.second.offset(8 * index as u64),
        };
        (0..WORDS).map(slot)
    }
}

impl Frame {
    /// Reads the frame at `rsp`.
    pub(super) fn read(memory: &Memory, paging: &Paging, rsp: Va) -> Result<Self, GuestError> {
        let place = Place::find(memory, paging, rsp)?;
        let mut words = [0; WORDS];
        for (word, slot) in words.iter_mut().zip(place.slots()) {
            *word = memory.load(slot)?;
        }
        let [error_code, rip, cs, rflags, rsp, ss] = words;
        Ok(Self { place, error_code, rip, cs, rflags, rsp, ss })
    }

    /// Writes it back to where it was read from.
    pub(super) fn write(&self, memory: &Memory) -> Result<(), GuestError> {
        let words = [self.error_code, self.rip, self.cs, self.rflags, self.rsp, self.ss];
        for (word, slot) in words.into_iter().zip(self.place.slots()) {
            memory.word(slot)?.store(word, Release);
        }
        Ok(())
    }

    /// Registers of the interrupted context: the stub has changed none, and the CPU only those that it pushed.
    pub(super) fn interrupted(&self, regs: &kvm_regs) -> Registers {
        Registers { rip: self.rip, rsp: self.rsp, rflags: self.rflags, ..registers::from_kvm(regs) }
    }

    /// Takes the pushed registers over from `registers`.
    pub(super) fn set_interrupted(&mut self, registers: &Registers) {
        (self.rip, self.rsp, self.rflags) = (registers.rip, registers.rsp, registers.rflags);
    }

    /// Selector of the interrupted code segment.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of the word are padding")]
    pub(super) fn cs(&self) -> u16 {
        self.cs as u16
    }

    /// Selector of the interrupted stack segment.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of the word are padding")]
    pub(super) fn ss(&self) -> u16 {
        self.ss as u16
    }

    /// Whether the interrupted context has a segment of its local descriptor table, which can be gone by now.
    pub(super) fn has_local_segment(&self) -> bool {
        is_local(self.cs()) || is_local(self.ss())
    }

    /// The error code, as wide as the CPU makes it.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of the word are padding")]
    pub(super) fn error_code(&self) -> ErrorCode {
        ErrorCode::from_bits_retain(self.error_code as u32)
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::Cr3;

    use super::*;
    use vector14_hook::paging::Mode;

    const PAGING: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };

    /// Virtual pages 0x10000 and 0x11000 are mapped, the second one below the first; 0x12000 is not.
    fn guest() -> Memory {
        let memory = Memory::new(2 << 20).unwrap();
        let entries = [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4080, 0x9003), (0x4088, 0x7003)];
        for (slot, entry) in entries {
            memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
        }
        memory
    }

    #[test]
    fn a_frame_in_two_pages_is_read_and_written_in_both() {
        let memory = guest();
        for (slot, word) in [(0x9fe8, 1u64), (0x9ff0, 2), (0x9ff8, 3), (0x7000, 4), (0x7008, 5), (0x7010, 6)] {
            memory.write(Pa(slot), &word.to_le_bytes()).unwrap();
        }
        let mut frame = Frame::read(&memory, &PAGING, Va(0x1_0fe8)).unwrap();
        assert_eq!((frame.error_code, frame.rip, frame.cs), (1, 2, 3));
        assert_eq!((frame.rflags, frame.rsp, frame.ss), (4, 5, 6));
        (frame.rip, frame.rflags) = (20, 40);
        frame.write(&memory).unwrap();
        assert_eq!((memory.load(Pa(0x9ff0)), memory.load(Pa(0x7000))), (Ok(20), Ok(40)));
    }

    #[test]
    fn a_stack_that_is_not_mapped_or_not_aligned_has_no_frame() {
        let memory = guest();
        let read = |rsp| Frame::read(&memory, &PAGING, Va(rsp)).unwrap_err();
        assert_eq!(read(0x1_2000), GuestError::NotMapped(Va(0x1_2000)));
        assert_eq!(read(0x1_1ff8), GuestError::NotMapped(Va(0x1_2000)));
        assert_eq!(read(0x1_0004), GuestError::OutsideMemory(Pa(0x9004)));
        assert_eq!(read(0x8000_0000_0000_0000), GuestError::Malformed(Va(0x8000_0000_0000_0000)));
    }
}
