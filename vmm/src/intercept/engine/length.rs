//! Instruction lengths. A loop faults at the same few instructions repeatedly, so recent lengths are cached, each
//! with the bytes that it was decoded from.

use vector14_hook::Code;

/// Number of instructions in the cache.
const ENTRIES: usize = 16;

/// One vCPU's cache of instruction lengths.
#[derive(Debug, Default)]
pub(crate) struct Lengths([CachedLength; ENTRIES]);

#[derive(Clone, Copy, Debug, Default)]
struct CachedLength {
    code: Code,
    /// Length in bytes; 0 if the entry is empty.
    length: usize,
}

impl Lengths {
    /// Length of the instruction that `code` begins with, in bytes; `None` if it is not a valid instruction.
    pub(super) fn of(&mut self, code: &Code) -> Option<usize> {
        let index = usize::from(code.rip.0.to_le_bytes()[0]) % ENTRIES;
        let entry = &mut self.0[index];
        if entry.length == 0 || entry.code != *code {
            *entry = CachedLength { code: *code, length: code.decode().ok()?.len() };
        }
        Some(entry.length)
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::Va;
    use vector14_hook::code::INSTRUCTION_LIMIT;

    use super::*;

    fn code(rip: u64, start: &[u8]) -> Code {
        let mut bytes = [0x90; INSTRUCTION_LIMIT];
        bytes[..start.len()].copy_from_slice(start);
        Code { rip: Va(rip), bytes, count: INSTRUCTION_LIMIT, bits: 64 }
    }

    #[test]
    fn what_is_remembered_is_forgotten_when_the_code_changes() {
        let mut lengths = Lengths::default();
        for _ in 0..2 {
            assert_eq!(lengths.of(&code(0x1000, &[0x8a, 0x07])), Some(2));
            assert_eq!(lengths.of(&code(0x1000, &[0x48, 0x8b, 0x47, 0x08])), Some(4));
            assert_eq!(lengths.of(&code(0x1000 + ENTRIES as u64, &[0x8a, 0x07])), Some(2));
        }
    }

    #[test]
    fn what_is_no_instruction_has_no_length() {
        assert_eq!(Lengths::default().of(&code(0, &[0x06])), None);
    }
}
