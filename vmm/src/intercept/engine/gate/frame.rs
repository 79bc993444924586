//! The frame that the CPU pushed when it went through gate 14.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vector14_hook::paging::Paging;
use vector14_hook::{ErrorCode, GuestError, Registers, Va};

use super::idt::Width;
use super::stack::{LongStack, ProtectedStack};
use crate::intercept::engine::registers;
use crate::machine::memory::Memory;
use crate::machine::segment::is_local;

/// EFLAGS.VM: virtual-8086 mode.
const VIRTUAL_8086: u64 = 1 << 17;

/// The frame of an exception with an error code (SDM vol. 3A, 6.12.1 and 6.14.2; APM vol. 2, 8.7 and 8.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    stack: Stack,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    ss: u64,
}

/// Where the frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    /// Six words of 8 bytes.
    Long(LongStack),
    /// Six words of 4 bytes, because the CPU came from another ring.
    ProtectedOuter(ProtectedStack),
    /// Four words of 4 bytes, on the stack of the interrupted code.
    ProtectedSame(ProtectedStack),
}

impl Frame {
    /// Reads the frame of a vCPU that has just come through the gate, from the top of its stack.
    pub(super) fn read(
        memory: &Memory,
        paging: &Paging,
        width: Width,
        rsp: Va,
        sregs: &kvm_sregs,
    ) -> Result<Self, GuestError> {
        match width {
            Width::Bits64 => {
                let stack = LongStack::find(memory, paging, rsp)?;
                let [error_code, rip, cs, rflags, rsp, ss] = stack.read(memory)?;
                Ok(Self { stack: Stack::Long(stack), error_code, rip, cs, rflags, rsp, ss })
            }
            Width::Bits32 => Self::read_protected(memory, paging, rsp, sregs),
        }
    }

    fn read_protected(memory: &Memory, paging: &Paging, rsp: Va, sregs: &kvm_sregs) -> Result<Self, GuestError> {
        let stack = ProtectedStack::of(rsp.0, &sregs.ss);
        let [error_code, rip, cs, rflags] = stack.read::<4>(memory, paging)?;
        let from_another_ring = rflags & VIRTUAL_8086 != 0 || (cs ^ u64::from(sregs.cs.selector)) & 3 != 0;
        let (stack, rsp, ss) = if from_another_ring {
            let [.., rsp, ss] = stack.read::<6>(memory, paging)?;
            (Stack::ProtectedOuter(stack), rsp, ss)
        } else {
            (Stack::ProtectedSame(stack), stack.above(4), u64::from(sregs.ss.selector))
        };
        Ok(Self { stack, error_code, rip, cs, rflags, rsp, ss })
    }

    /// Writes the frame back, and returns the stack pointer that leads to it. The frame stays where it was read,
    /// unless it is on the interrupted code's stack and that stack pointer has changed.
    pub(super) fn write(&self, memory: &Memory, paging: &Paging) -> Result<u64, GuestError> {
        let words = [self.error_code, self.rip, self.cs, self.rflags, self.rsp, self.ss];
        match self.stack {
            Stack::Long(stack) => stack.write(memory, words),
            Stack::ProtectedOuter(stack) => stack.write(memory, paging, &words),
            Stack::ProtectedSame(stack) => stack.below(self.rsp, 4).write(memory, paging, &words[..4]),
        }
    }

    /// Whether the fault interrupted code in virtual-8086 mode.
    pub(super) fn is_virtual_8086(&self) -> bool {
        matches!(self.stack, Stack::ProtectedOuter(_)) && self.rflags & VIRTUAL_8086 != 0
    }

    /// Registers of the interrupted context. The stub has changed none, and the CPU only those that it pushed.
    pub(super) fn interrupted(&self, regs: &kvm_regs) -> Registers {
        Registers { rip: self.rip, rsp: self.rsp, rflags: self.rflags, ..registers::from_kvm(regs) }
    }

    /// Copies the pushed registers from `registers`. EFLAGS.VM stays, because it decides the size of the frame.
    pub(super) fn set_interrupted(&mut self, registers: &Registers) {
        let flags = (registers.rflags & !VIRTUAL_8086) | (self.rflags & VIRTUAL_8086);
        (self.rip, self.rsp, self.rflags) = (registers.rip, registers.rsp, flags);
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

    /// Whether the interrupted context uses a segment of its local descriptor table, which may no longer exist.
    pub(super) fn has_local_segment(&self) -> bool {
        !self.is_virtual_8086() && (is_local(self.cs()) || is_local(self.ss()))
    }

    /// The error code, without the padding of its word.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits of the word are padding")]
    pub(super) fn error_code(&self) -> ErrorCode {
        ErrorCode::from_bits_retain(self.error_code as u32)
    }
}

/// State that only a vCPU in the stub has.
#[derive(Debug)]
pub(super) struct InStub {
    /// The guest's own handler.
    pub(super) handler: Va,
    pub(super) width: Width,
    pub(super) frame: Frame,
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_segment;
    use vector14_hook::paging::Mode;
    use vector14_hook::{Cr3, Pa};

    use super::*;

    const LONG: Paging = Paging { cr3: Cr3(0x1000), mode: Mode::Long { levels: 4 }, no_execute: true };
    const SHORT: Paging = Paging { cr3: Cr3(0x5000), mode: Mode::Bits32 { large_pages: true }, no_execute: false };

    /// Virtual pages 0x10000 and 0x11000 are mapped, the second one below the first; 0x12000 is not.
    fn guest() -> Memory {
        let memory = Memory::new(2 << 20).unwrap();
        let long = [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4080, 0x9003), (0x4088, 0x7003)];
        let short = [(0x5000, 0x6003), (0x6040, 0x7003_0000_9003)];
        for (slot, entry) in long.into_iter().chain(short) {
            memory.write(Pa(slot), &entry.to_le_bytes()).unwrap();
        }
        memory
    }

    fn read_long(memory: &Memory, rsp: u64) -> Result<Frame, GuestError> {
        Frame::read(memory, &LONG, Width::Bits64, Va(rsp), &kvm_sregs::default())
    }

    #[test]
    fn a_frame_in_two_pages_is_read_and_written_in_both() {
        let memory = guest();
        for (slot, word) in [(0x9fe8, 1u64), (0x9ff0, 2), (0x9ff8, 3), (0x7000, 4), (0x7008, 5), (0x7010, 6)] {
            memory.write(Pa(slot), &word.to_le_bytes()).unwrap();
        }
        let mut frame = read_long(&memory, 0x1_0fe8).unwrap();
        assert_eq!((frame.error_code, frame.rip, frame.cs), (1, 2, 3));
        assert_eq!((frame.rflags, frame.rsp, frame.ss), (4, 5, 6));
        (frame.rip, frame.rflags) = (20, 40);
        assert_eq!(frame.write(&memory, &LONG), Ok(0x1_0fe8));
        assert_eq!((memory.load(Pa(0x9ff0)), memory.load(Pa(0x7000))), (Ok(20), Ok(40)));
    }

    #[test]
    fn a_stack_that_is_not_mapped_or_not_aligned_has_no_frame() {
        let memory = guest();
        let read = |rsp| read_long(&memory, rsp).unwrap_err();
        assert_eq!(read(0x1_2000), GuestError::NotMapped(Va(0x1_2000)));
        assert_eq!(read(0x1_1ff8), GuestError::NotMapped(Va(0x1_2000)));
        assert_eq!(read(0x1_0004), GuestError::OutsideMemory(Pa(0x9004)));
        assert_eq!(read(0x8000_0000_0000_0000), GuestError::Malformed(Va(0x8000_0000_0000_0000)));
    }

    /// A frame of 32-bit words at `rsp`, in a stack segment that begins at 0x8000; the handler runs in ring 0.
    fn read_short(memory: &Memory, rsp: u64, words: &[u32]) -> Result<Frame, GuestError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = rsp.wrapping_add(0x8000) & 0xffff_ffff;
        for (byte, at) in bytes.iter().zip(at..) {
            let physical = SHORT.translate(Va(at), |slot| memory.load(slot))?.address;
            memory.write(physical, &[*byte])?;
        }
        let mut sregs = kvm_sregs {
            ss: kvm_segment { base: 0x8000, selector: 0x10, db: 1, ..Default::default() },
            ..Default::default()
        };
        sregs.cs.selector = 8;
        Frame::read(memory, &SHORT, Width::Bits32, Va(rsp), &sregs)
    }

    #[test]
    fn a_32_bit_frame_from_the_same_ring_has_no_stack_pointer_and_moves_with_it() {
        let memory = guest();
        let mut frame = read_short(&memory, 0x8ff9, &[1, 0x2222, 8, 0x46, 0xdead]).unwrap();
        assert_eq!((frame.error_code, frame.rip, frame.cs, frame.rflags), (1, 0x2222, 8, 0x46));
        assert_eq!((frame.rsp, frame.ss), (0x9009, 0x10));
        assert_eq!(frame.write(&memory, &SHORT), Ok(0x8ff9));
        frame.rsp -= 4;
        assert_eq!(frame.write(&memory, &SHORT), Ok(0x8ff5));
        let moved = read_short(&memory, 0x8ff5, &[]).unwrap();
        assert_eq!((moved.rip, moved.rsp), (0x2222, 0x9005));
    }

    #[test]
    fn a_32_bit_frame_from_another_ring_has_one() {
        let memory = guest();
        let mut frame = read_short(&memory, 0x8fe0, &[4, 0x3333, 0x1b, 0x202, 0xbfff_0000, 0x23]).unwrap();
        assert_eq!((frame.rip, frame.rsp, frame.ss()), (0x3333, 0xbfff_0000, 0x23));
        frame.rsp -= 4;
        assert_eq!(frame.write(&memory, &SHORT), Ok(0x8fe0));
        assert_eq!(read_short(&memory, 0x8fe0, &[]).unwrap().rsp, 0xbffe_fffc);
        let virtual_8086 = read_short(&memory, 0x8fe0, &[4, 0x100, 0x1000, 0x2_0202, 0xfff0, 0x2000]).unwrap();
        assert!(virtual_8086.is_virtual_8086() && !frame.is_virtual_8086());
        assert_eq!(read_short(&memory, 0xa000, &[]), Err(GuestError::NotMapped(Va(0x1_2000))));
    }
}
