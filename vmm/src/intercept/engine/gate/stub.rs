//! The stub: the few bytes of guest code that gate 14 points at.

use vector14_hook::paging::Paging;
use vector14_hook::{GuestError, Pa, Va};

use super::idt::Width;
use crate::machine::memory::Memory;
use crate::machine::paging::{read_virtual, read_words};

/// The port that the stub writes to. No PC device answers there.
pub(super) const FAULT_PORT: u8 = 0xe4;

/// Length of `out imm8, al`.
pub(super) const OUT_LENGTH: u64 = 2;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const ENDBR32: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfb];
/// `out; add rsp, 8; iretq`
const BODY_64: &[u8] = &[0xe6, FAULT_PORT, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf];
/// `out; add esp, 4; iretd`
const BODY_32: &[u8] = &[0xe6, FAULT_PORT, 0x83, 0xc4, 0x04, 0xcf];

/// A place for a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StubPlace {
    pub(super) start: Va,
    pub(super) physical: Pa,
}

/// The stub of one of the guest's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// The handler that the guest chose; it receives reinjected faults.
    pub(super) handler: Va,
    /// First bytes of the handler.
    head: [u8; 16],
    /// Where the stub is.
    pub(super) place: StubPlace,
    pub(super) code: Code,
    /// The bytes that the stub replaced.
    original: [u8; 12],
}

/// Bytes of a stub: ENDBR or nothing, then its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    bytes: [u8; 12],
    /// Offset of the OUT.
    out: usize,
    length: usize,
}

impl Code {
    /// Builds a stub for `handler`; it begins with ENDBR if the handler does.
    pub(super) fn of_handler(memory: &Memory, paging: &Paging, handler: Va, width: Width) -> Result<Self, GuestError> {
        let (endbr, body) = match width {
            Width::Bits64 => (ENDBR64, BODY_64),
            Width::Bits32 => (ENDBR32, BODY_32),
        };
        let mut head = [0; 4];
        read_virtual(memory, paging, handler, &mut head)?;
        let out = if head == endbr { head.len() } else { 0 };
        let length = out + body.len();
        let mut bytes = [0; 12];
        bytes[..out].copy_from_slice(&head[..out]);
        bytes[out..length].copy_from_slice(body);
        Ok(Self { bytes, out, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Stub {
    /// Writes the stub of `handler` to its place.
    pub(super) fn write(
        memory: &Memory,
        paging: &Paging,
        handler: Va,
        place: StubPlace,
        code: Code,
    ) -> Result<Self, GuestError> {
        let mut head = [0; 16];
        read_words(memory, paging, handler, &mut head);
        let mut original = [0; 12];
        memory.read(place.physical, &mut original[..code.length])?;
        memory.write(place.physical, code.bytes())?;
        Ok(Self { handler, head, place, code, original })
    }

    /// Restores the bytes that the stub replaced, unless the guest has changed them since. No context may return here.
    pub(super) fn erase(&self, memory: &Memory, paging: &Paging) {
        if self.is_intact(memory, paging) {
            // What can be read can be written.
            let _ = memory.write(self.place.physical, &self.original[..self.code.length]);
        }
    }

    /// Whether the handler's first bytes have changed.
    pub(super) fn handler_has_gone(&self, memory: &Memory, paging: &Paging) -> bool {
        let mut head = [0; 16];
        let count = read_words(memory, paging, self.handler, &mut head);
        head[..count] != self.head[..count]
    }

    /// Address of the stub's OUT.
    pub(super) fn out(&self) -> Va {
        self.place.start.offset(self.code.out as u64)
    }

    /// Whether `address` is inside the stub.
    pub(super) fn contains(&self, address: Va) -> bool {
        address.0.wrapping_sub(self.place.start.0) < self.code.length as u64
    }

    /// Whether the stub's bytes are as they were written, and mapped where they were.
    pub(super) fn is_intact(&self, memory: &Memory, paging: &Paging) -> bool {
        let mut bytes = [0; 12];
        let bytes = &mut bytes[..self.code.length];
        let leaf = paging.translate(self.place.start, |slot| memory.load(slot));
        leaf.is_ok_and(|leaf| leaf.address == self.place.physical)
            && memory.read(self.place.physical, bytes).is_ok()
            && bytes == self.code.bytes()
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::paging::Mode;
    use vector14_hook::{Cr3, Pa};

    use super::*;

    #[test]
    fn a_handler_with_endbr_gets_a_stub_with_one() {
        let memory = Memory::new(2 << 20).unwrap();
        let paging = Paging { cr3: Cr3(0), mode: Mode::Off, no_execute: false };
        memory.write(Pa(0x8000), &ENDBR64).unwrap();
        memory.write(Pa(0x9000), &ENDBR32).unwrap();
        let code = |handler, width| Code::of_handler(&memory, &paging, Va(handler), width).unwrap();
        let with = code(0x8000, Width::Bits64);
        assert_eq!(with.bytes(), [0xf3, 0x0f, 0x1e, 0xfa, 0xe6, FAULT_PORT, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf]);
        assert_eq!(with.out, 4);
        assert_eq!(code(0x9000, Width::Bits64).bytes(), BODY_64);
        assert_eq!(code(0x8000, Width::Bits32).bytes(), BODY_32);
        assert_eq!(code(0x9000, Width::Bits32).bytes().len(), 10);
        let stub = {
            let place = StubPlace { start: Va(0xa000), physical: Pa(0xa000) };
            Stub::write(&memory, &paging, Va(0x8000), place, with).unwrap()
        };
        assert_eq!(stub.out(), Va(0xa004));
        assert!(stub.contains(Va(0xa00b)) && !stub.contains(Va(0xa00c)) && !stub.contains(Va(0x9fff)));
        assert!(stub.is_intact(&memory, &paging));
        memory.write(Pa(0xa00b), &[0]).unwrap();
        assert!(!stub.is_intact(&memory, &paging));
    }
}
