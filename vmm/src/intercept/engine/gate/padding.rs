//! Whether bytes are padding: what assemblers, compilers and linkers put where no code belongs.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use vector14_hook::Pa;
use vector14_hook::code::INSTRUCTION_LIMIT;
use vector14_hook::paging::{Mode, Paging};

use crate::machine::memory::Memory;

/// Whether the first `length` bytes of `range` are zero, or instructions without an effect; the last one may be
/// longer.
pub(super) fn is_padding(memory: &Memory, paging: &Paging, range: &Range<Pa>, length: usize) -> bool {
    let mut bytes = [0; 2 * INSTRUCTION_LIMIT];
    let most = usize::try_from(range.end.0.saturating_sub(range.start.0)).unwrap_or(usize::MAX);
    let bytes = &mut bytes[..most.min(2 * INSTRUCTION_LIMIT)];
    let read = length <= bytes.len() && memory.read(range.start, bytes).is_ok();
    read && (bytes[..length].iter().all(|byte| *byte == 0) || have_no_effect(bytes, length, bits(paging.mode)))
}

fn bits(mode: Mode) -> u32 {
    match mode {
        Mode::Long { .. } => 64,
        Mode::Off | Mode::Bits32 { .. } | Mode::Pae => 32,
    }
}

fn have_no_effect(bytes: &[u8], length: usize, bits: u32) -> bool {
    let mut decoder = Decoder::new(bits, bytes, DecoderOptions::NONE);
    while decoder.position() < length {
        if !decoder.can_decode() || !has_no_effect(&decoder.decode(), bits) {
            return false;
        }
    }
    true
}

/// Whether this is NOP, INT3, or one of the instructions that padded 32-bit code before long NOPs existed: `mov esi,
/// esi`, `lea esi, [esi + 0]`.
fn has_no_effect(instruction: &Instruction, bits: u32) -> bool {
    let to = instruction.op0_register();
    match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Int3 => true,
        Mnemonic::Mov if bits == 32 => {
            instruction.op1_kind() == OpKind::Register && to != Register::None && to == instruction.op1_register()
        }
        Mnemonic::Lea if bits == 32 => {
            to == instruction.memory_base()
                && instruction.memory_index() == Register::None
                && instruction.memory_displacement64() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::Cr3;

    use super::*;

    #[test]
    fn padding_is_what_assemblers_make() {
        let memory = Memory::new(2 << 20).unwrap();
        let padding = |bytes: &[u8], length, mode| {
            memory.write(Pa(0x1000), bytes).unwrap();
            let paging = Paging { cr3: Cr3(0), mode, no_execute: false };
            is_padding(&memory, &paging, &(Pa(0x1000)..Pa(0x1000 + bytes.len() as u64)), length)
        };
        let (long, short) = (Mode::Long { levels: 4 }, Mode::Bits32 { large_pages: true });
        let nopw = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        assert!(padding(&nopw, 8, long), "the last one may be longer");
        assert!(padding(&[0xcc; 8], 8, long) && padding(&[0x90; 8], 8, short) && padding(&[0; 8], 8, long));
        assert!(
            padding(&[0x8d, 0xb4, 0x26, 0, 0, 0, 0], 6, short) && padding(&[0x89, 0xf6, 0x8d, 0x76, 0, 0x90], 6, short)
        );
        assert!(!padding(&[0x89, 0xf6, 0x89, 0xf6, 0x89, 0xf6, 0x89, 0xf6], 8, long), "that clears the upper half");
        assert!(!padding(&[0x90, 0x90, 0x90, 0xc3, 0x90, 0x90, 0x90, 0x90], 8, long));
        assert!(!padding(&[0x8d, 0xb4, 0x26, 1, 0, 0, 0], 6, short) && !padding(&[0; 7], 8, long));
    }
}
