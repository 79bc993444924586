//! Code segments: in which mode code runs, and where its addresses begin.

use kvm_bindings::{kvm_segment, kvm_sregs};
use vector14_hook::paging::{EFER_LMA, Paging};
use vector14_hook::{Code, Va};

use crate::machine::memory::Memory;
use crate::machine::paging::read_words;

const TABLE_INDICATOR: u16 = 1 << 2;
const LONG: u64 = 1 << 53;
const DEFAULT_SIZE: u64 = 1 << 54;

/// The segment that code runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeSegment(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The segment is loaded.
    Loaded(Size),
    /// The CPU has left the segment: its descriptor must be looked up again.
    Descriptor(Va),
}

/// The parts of a segment that decide how the bytes at an instruction pointer are read (SDM vol. 3A, 3.4.5 and
/// 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    /// Operand and address size in bits: 64, 32 or 16.
    bits: u32,
    base: u64,
}

/// Defaults to 64-bit code.
impl Default for CodeSegment {
    fn default() -> Self {
        Self(Kind::Loaded(Size { bits: 64, base: 0 }))
    }
}

/// Whether `selector` names a descriptor of the local descriptor table, which a guest's processes can change.
pub(crate) fn is_local(selector: u16) -> bool {
    selector & TABLE_INDICATOR != 0
}

/// What a segment register holds after `selector` is loaded from the descriptor tables of `sregs`; `None` if the
/// descriptor can't be read, or is outside of its table.
pub(crate) fn load(selector: u16, sregs: &kvm_sregs, memory: &Memory, paging: &Paging) -> Option<kvm_segment> {
    let limit = if is_local(selector) { sregs.ldt.limit } else { sregs.gdt.limit.into() };
    let at = descriptor(selector, sregs);
    let mut bytes = [0; 8];
    let is_whole = u32::from(selector | 7) <= limit && read_words(memory, paging, at, &mut bytes) == bytes.len();
    is_whole.then(|| described(selector, u64::from_le_bytes(bytes)))
}

/// A segment register as it is loaded from its descriptor (SDM vol. 3A, 3.4.5).
fn described(selector: u16, descriptor: u64) -> kvm_segment {
    const ACCESSED: u8 = 1;
    let bits = |at: u32, mask: u8| (descriptor >> at).to_le_bytes()[0] & mask;
    let in_pages = bits(55, 1);
    let limit = u32::try_from(descriptor & 0xffff | descriptor >> 32 & 0xf_0000).unwrap_or_default();
    kvm_segment {
        base: base(descriptor),
        limit: if in_pages == 0 { limit } else { limit << 12 | 0xfff },
        selector,
        type_: bits(40, 0xf) | ACCESSED,
        present: bits(47, 1),
        dpl: bits(45, 3),
        db: bits(54, 1),
        s: bits(44, 1),
        l: bits(53, 1),
        g: in_pages,
        avl: bits(52, 1),
        ..kvm_segment::default()
    }
}

/// Address of the descriptor that `selector` names.
fn descriptor(selector: u16, sregs: &kvm_sregs) -> Va {
    let base = if is_local(selector) { sregs.ldt.base } else { sregs.gdt.base };
    Va(base.wrapping_add(u64::from(selector & !7)))
}

fn base(descriptor: u64) -> u64 {
    descriptor >> 16 & 0x00ff_ffff | descriptor >> 32 & 0xff00_0000
}

impl CodeSegment {
    /// The code segment that is loaded.
    pub(crate) fn loaded(sregs: &kvm_sregs) -> Self {
        let kvm_segment { l, db, base, .. } = sregs.cs;
        Self(Kind::Loaded(Size::new(l != 0 && sregs.efer & EFER_LMA != 0, db != 0, base)))
    }

    /// The code segment that `selector` names in the descriptor tables of `sregs`.
    pub(crate) fn of_selector(selector: u16, sregs: &kvm_sregs) -> Self {
        Self(Kind::Descriptor(descriptor(selector, sregs)))
    }

    /// The code segment that `selector` stands for in virtual-8086 mode.
    pub(crate) fn of_virtual_8086(selector: u16) -> Self {
        Self(Kind::Loaded(Size { bits: 16, base: u64::from(selector) << 4 }))
    }

    /// Whether the segment begins at 0 and is not 16-bit code, so that an offset in it is a linear address.
    pub(crate) fn is_flat(self, memory: &Memory, paging: &Paging) -> bool {
        self.size(memory, paging).is_some_and(|size| size.base == 0 && size.bits != 16)
    }

    /// Fetches the instruction at `rip`: as many of its bytes as can be read. `None` if no byte can be read, or the
    /// descriptor can't be.
    pub(crate) fn fetch(self, rip: u64, memory: &Memory, paging: &Paging) -> Option<Code> {
        let size = self.size(memory, paging)?;
        let mut code = Code { rip: Va(rip), bits: size.bits, ..Code::default() };
        // The page after the instruction's need not be mapped.
        code.count = read_words(memory, paging, size.linear(rip), &mut code.bytes);
        (code.count > 0).then_some(code)
    }

    fn size(self, memory: &Memory, paging: &Paging) -> Option<Size> {
        match self.0 {
            Kind::Loaded(size) => Some(size),
            Kind::Descriptor(at) => {
                let mut descriptor = [0; 8];
                let count = read_words(memory, paging, at, &mut descriptor);
                (count == descriptor.len()).then(|| Size::described(u64::from_le_bytes(descriptor)))
            }
        }
    }
}

impl Size {
    fn new(long: bool, default_size: bool, base: u64) -> Self {
        match (long, default_size) {
            (true, _) => Self { bits: 64, base: 0 },
            (false, true) => Self { bits: 32, base },
            (false, false) => Self { bits: 16, base },
        }
    }

    fn described(descriptor: u64) -> Self {
        Self::new(descriptor & LONG != 0, descriptor & DEFAULT_SIZE != 0, base(descriptor))
    }

    /// The linear address of `rip`; it has 32 bits outside of 64-bit mode.
    fn linear(self, rip: u64) -> Va {
        Va(wrap(rip.wrapping_add(self.base), self.bits))
    }
}

/// The address after the instruction of `code`, which is `length` bytes long.
pub(crate) fn next_rip(code: &Code, length: usize) -> u64 {
    wrap(code.rip.0.wrapping_add(length as u64), code.bits)
}

fn wrap(address: u64, bits: u32) -> u64 {
    if bits == 64 { address } else { address & 0xffff_ffff }
}

#[cfg(test)]
mod tests {
    use vector14_hook::paging::Mode;
    use vector14_hook::{Cr3, Pa};

    use super::*;

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
            let size = |segment: CodeSegment| segment.size(&memory, &off);
            assert_eq!(size(CodeSegment::of_selector(8 | 3, &sregs)), Some(Size { bits, base }));
            assert_eq!(size(CodeSegment::loaded(&sregs)), Some(Size { bits, base }));
        }
    }

    #[test]
    fn a_descriptor_is_loaded_with_all_that_it_says() {
        let memory = Memory::new(2 << 20).unwrap();
        let off = Paging { cr3: Cr3(0), mode: Mode::Off, no_execute: false };
        memory.write(Pa(0x608), &0x12c0_fb34_5678_0004_u64.to_le_bytes()).unwrap();
        let mut sregs = kvm_sregs::default();
        (sregs.ldt.base, sregs.ldt.limit) = (0x600, 0xf);
        let segment = load(0xf, &sregs, &memory, &off).unwrap();
        assert_eq!((segment.base, segment.limit, segment.selector), (0x1234_5678, 0x4fff, 0xf));
        assert_eq!((segment.type_, segment.s, segment.dpl, segment.present), (0xb, 1, 3, 1));
        assert_eq!((segment.l, segment.db, segment.g), (0, 1, 1));
        assert_eq!(load(0x17, &sregs, &memory, &off), None, "the table ends before");
        assert_eq!(load(0x8, &sregs, &memory, &off), None, "and the global one is empty");
    }

    #[test]
    fn code_is_fetched_from_where_its_segment_begins() {
        let memory = Memory::new(2 << 20).unwrap();
        memory.write(Pa(0x1_2345), &[0x8a, 0x07]).unwrap();
        let off = Paging { cr3: Cr3(0), mode: Mode::Off, no_execute: false };
        let segment = CodeSegment(Kind::Loaded(Size { bits: 16, base: 0x1_0000 }));
        let code = segment.fetch(0x2345, &memory, &off).unwrap();
        assert_eq!((code.rip, code.bits, &code.bytes[..2]), (Va(0x2345), 16, &[0x8a, 0x07][..]));
        assert_eq!(segment.fetch(0xe000_0000, &memory, &off), None);
    }

    #[test]
    fn addresses_wrap_at_4_gib_outside_of_64_bit_mode() {
        let code = |bits| Code { rip: Va(0xffff_ffff), bits, ..Code::default() };
        assert_eq!((next_rip(&code(64), 2), next_rip(&code(32), 2)), (0x1_0000_0001, 1));
        assert_eq!(Size { bits: 32, base: 0xffff_0000 }.linear(0x2_0000), Va(0x1_0000));
    }
}
