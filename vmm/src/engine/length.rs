//! How long instructions are. A loop faults at the same few again and again: what was decoded lately is remembered, with the
//! very bytes that it was decoded from.

use iced_x86::{Decoder, DecoderOptions};

/// Longest instruction, in bytes (SDM vol. 2A, 2.3.11).
pub(super) const INSTRUCTION_LIMIT: usize = 15;

/// So many instructions are remembered.
const ENTRIES: usize = 16;

/// One vCPU's memory of instruction lengths.
#[derive(Debug, Default)]
pub(super) struct Lengths([Entry; ENTRIES]);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    code: Code,
    /// In bytes; 0 where nothing is remembered.
    length: usize,
}

/// An instruction's bytes, with those behind it, and how they are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) bytes: [u8; INSTRUCTION_LIMIT],
    /// How many of them could be read.
    pub(super) count: usize,
    /// Operand and address size: 16, 32 or 64.
    pub(super) bits: u32,
}

impl Lengths {
    /// Length of the instruction that begins with `code` at `rip`, in bytes; `None` where it is none.
    pub(super) fn of(&mut self, rip: u64, code: &Code) -> Option<usize> {
        let index = usize::from(rip.to_le_bytes()[0]) % ENTRIES;
        let entry = &mut self.0[index];
        if entry.length == 0 || entry.code != *code {
            *entry = Entry { code: *code, length: decode(code)? };
        }
        Some(entry.length)
    }
}

fn decode(code: &Code) -> Option<usize> {
    let mut decoder = Decoder::new(code.bits, &code.bytes[..code.count], DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(start: &[u8], bits: u32) -> Code {
        let mut bytes = [0x90; INSTRUCTION_LIMIT];
        bytes[..start.len()].copy_from_slice(start);
        Code { bytes, count: INSTRUCTION_LIMIT, bits }
    }

    #[test]
    fn what_is_remembered_is_forgotten_when_the_code_changes() {
        let mut lengths = Lengths::default();
        for _ in 0..2 {
            assert_eq!(lengths.of(0x1000, &code(&[0x8a, 0x07], 64)), Some(2));
            assert_eq!(lengths.of(0x1000, &code(&[0x48, 0x8b, 0x47, 0x08], 64)), Some(4));
            assert_eq!(lengths.of(0x1000 + ENTRIES as u64, &code(&[0x8a, 0x07], 64)), Some(2));
        }
    }

    #[test]
    fn the_same_bytes_are_another_instruction_in_another_mode() {
        let mut lengths = Lengths::default();
        // inc eax; nop — or a REX prefix of the nop.
        assert_eq!(lengths.of(0, &code(&[0x40], 32)), Some(1));
        assert_eq!(lengths.of(0, &code(&[0x40], 64)), Some(2));
    }

    #[test]
    fn what_is_no_instruction_has_no_length() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.of(0, &code(&[0x06], 64)), None);
        let cut = Code { count: 2, ..code(&[0x48, 0x8b, 0x47, 0x08], 64) };
        assert_eq!(lengths.of(0, &cut), None);
        assert_eq!(lengths.of(0, &Code { count: 0, ..cut }), None);
    }
}
