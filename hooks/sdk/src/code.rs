//! The faulting instruction: its bytes, and how to decode them.

use iced_x86::{Decoder, DecoderOptions};

use crate::{GuestError, Va};

/// A decoded instruction, with its operands and a `Display` in Intel's syntax; see [`iced_x86`].
pub use iced_x86::Instruction;

/// Longest instruction, in bytes (SDM vol. 2A, 2.3.11).
pub const INSTRUCTION_LIMIT: usize = 15;

/// The bytes at the instruction pointer, and the mode in which the CPU executes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Address of the first byte.
    pub rip: Va,
    /// The bytes; those from `count` on are 0.
    pub bytes: [u8; INSTRUCTION_LIMIT],
    /// Number of bytes that could be read. It can be less than 15 if the next page is not mapped.
    pub count: usize,
    /// Operand and address size: 16, 32 or 64.
    pub bits: u32,
}

impl Code {
    /// Decodes the first instruction.
    ///
    /// # Errors
    /// [`GuestError::NoInstruction`].
    pub fn decode(&self) -> Result<Instruction, GuestError> {
        let bytes = &self.bytes[..self.count.min(INSTRUCTION_LIMIT)];
        let mut decoder = Decoder::with_ip(self.bits, bytes, self.rip.0, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() { Err(GuestError::NoInstruction(self.rip)) } else { Ok(instruction) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(start: &[u8], bits: u32) -> Code {
        let mut bytes = [0x90; INSTRUCTION_LIMIT];
        bytes[..start.len()].copy_from_slice(start);
        Code { rip: Va(0x1000), bytes, count: INSTRUCTION_LIMIT, bits }
    }

    #[test]
    fn an_instruction_reads_as_intel_writes_it() {
        let instruction = code(&[0x48, 0x8b, 0x47, 0x08], 64).decode().unwrap();
        assert_eq!(instruction.to_string(), "mov rax,[rdi+8]");
        assert_eq!((instruction.len(), instruction.ip()), (4, 0x1000));
    }

    #[test]
    fn the_same_bytes_are_another_instruction_in_another_mode() {
        // inc eax; nop — or a REX prefix of the nop.
        assert_eq!(code(&[0x40], 32).decode().unwrap().len(), 1);
        assert_eq!(code(&[0x40], 64).decode().unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_instruction_is_an_error() {
        let none = Err(GuestError::NoInstruction(Va(0x1000)));
        assert_eq!(code(&[0x06], 64).decode(), none);
        let cut = Code { count: 2, ..code(&[0x48, 0x8b, 0x47, 0x08], 64) };
        assert_eq!(cut.decode(), none);
        assert_eq!(Code { count: 0, ..cut }.decode(), none);
    }
}
