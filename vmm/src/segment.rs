//! Code segments: in which mode code runs, and where its addresses begin.

use kvm_bindings::{kvm_segment, kvm_sregs};
use vector14_hook::Va;

use crate::guest::read_words;
use crate::memory::Memory;
use crate::walk::Paging;

const TABLE_INDICATOR: u16 = 1 << 2;
const LONG: u64 = 1 << 53;
const DEFAULT_SIZE: u64 = 1 << 54;
const EFER_LMA: u64 = 1 << 10;

/// What of a code segment decides how the bytes at an instruction pointer are read (SDM vol. 3A, 3.4.5 and 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeSegment {
    /// Operand and address size, in bits: 64, or else 32 or 16.
    pub(crate) bits: u32,
    base: u64,
}

impl CodeSegment {
    /// The one that is loaded.
    pub(crate) fn loaded(sregs: &kvm_sregs) -> Self {
        let kvm_segment { l, db, base, .. } = sregs.cs;
        Self::new(l != 0 && sregs.efer & EFER_LMA != 0, db != 0, base)
    }

    /// The one that `selector` names in long mode. `None` where its descriptor can't be read.
    pub(crate) fn described(sregs: &kvm_sregs, memory: &Memory, paging: &Paging, selector: u16) -> Option<Self> {
        let table = if selector & TABLE_INDICATOR == 0 { sregs.gdt.base } else { sregs.ldt.base };
        let at = Va(table.wrapping_add(u64::from(selector & !7)));
        let mut descriptor = [0; 8];
        if read_words(memory, paging, at, &mut descriptor) < descriptor.len() {
            return None;
        }
        let descriptor = u64::from_le_bytes(descriptor);
        let base = descriptor >> 16 & 0x00ff_ffff | descriptor >> 32 & 0xff00_0000;
        Some(Self::new(descriptor & LONG != 0, descriptor & DEFAULT_SIZE != 0, base))
    }

    fn new(long: bool, default_size: bool, base: u64) -> Self {
        match (long, default_size) {
            (true, _) => Self { bits: 64, base: 0 },
            (false, true) => Self { bits: 32, base },
            (false, false) => Self { bits: 16, base },
        }
    }

    /// The linear address that `rip` stands for.
    pub(crate) fn linear(self, rip: u64) -> Va {
        Va(self.wrap(rip.wrapping_add(self.base)))
    }

    /// `rip` moved on by `length` bytes.
    pub(crate) fn advance(self, rip: u64, length: usize) -> u64 {
        self.wrap(rip.wrapping_add(length as u64))
    }

    /// Outside of 64-bit mode, addresses have 32 bits.
    fn wrap(self, address: u64) -> u64 {
        if self.bits == 64 { address } else { address & 0xffff_ffff }
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::{Cr3, Pa};

    use super::*;
    use crate::walk::Mode;

    #[test]
    fn a_descriptor_and_the_register_loaded_from_it_say_the_same() {
        let memory = Memory::new(2 << 20).unwrap();
        let off = Paging { cr3: Cr3(0), mode: Mode::Off, no_execute: false };
        let cases = [(0x00af_9b00_0000_ffff, 64, 0), (0x12cf_9b34_5678_ffff, 32, 0x1234_5678), (0x009b << 40, 16, 0)];
        for (descriptor, bits, base) in cases {
            memory.write(Pa(0x508), &u64::to_le_bytes(descriptor)).unwrap();
            let mut sregs = kvm_sregs { efer: EFER_LMA, ..kvm_sregs::default() };
            sregs.gdt.base = 0x500;
            sregs.cs = kvm_segment { base, l: u8::from(bits == 64), db: u8::from(bits == 32), ..Default::default() };
            let described = CodeSegment::described(&sregs, &memory, &off, 8 | 3);
            assert_eq!(described, Some(CodeSegment { bits, base }));
            assert_eq!(CodeSegment::loaded(&sregs), CodeSegment { bits, base });
        }
    }

    #[test]
    fn addresses_wrap_at_4_gib_outside_of_64_bit_mode() {
        let code = |bits, base| CodeSegment { bits, base };
        assert_eq!(code(64, 0).advance(0xffff_ffff, 2), 0x1_0000_0001);
        assert_eq!(code(32, 0).advance(0xffff_ffff, 2), 1);
        assert_eq!(code(32, 0xffff_0000).linear(0x2_0000), Va(0x1_0000));
    }
}
