//! Flat segments of DPL 0, in registers and in descriptor tables.

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use vector14_hook::GuestError;

use super::layout::GDT;
use crate::machine::memory::Memory;

/// Whether the code segment is for 32-bit or 64-bit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeSize {
    Bits32,
    Bits64,
}

impl CodeSize {
    /// The Linux boot protocol prescribes its selectors, `__BOOT_CS` and `__BOOT_DS`. Multiboot leaves them open: these
    /// are QEMU's, because xv6 keeps using them with a descriptor table of its own.
    const fn selectors(self) -> Selectors {
        match self {
            Self::Bits32 => Selectors { code: 0x08, data: 0x10 },
            Self::Bits64 => Selectors { code: 0x10, data: 0x18 },
        }
    }
}

/// The selectors of both segments.
struct Selectors {
    code: u16,
    data: u16,
}

/// The limit of the descriptor table, which has four descriptors.
const GDT_LIMIT: u16 = 4 * 8 - 1;

/// Loads every segment register with a flat segment, and GDTR with the address of the table that [`write_gdt`] writes.
pub(super) fn load(code: CodeSize, sregs: &mut kvm_sregs) {
    sregs.cs = code_segment(code);
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data_segment(code);
    }
    sregs.gdt = kvm_dtable { base: GDT.0, limit: GDT_LIMIT, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable::default();
}

/// Writes a descriptor table that contains these segments.
pub(super) fn write_gdt(code: CodeSize, memory: &Memory) -> Result<(), GuestError> {
    let segments = [code_segment(code), data_segment(code)];
    segments
        .iter()
        .try_for_each(|segment| memory.write(GDT.offset(segment.selector.into()), &descriptor(segment).to_le_bytes()))
}

fn code_segment(size: CodeSize) -> kvm_segment {
    const EXECUTE_READ_ACCESSED: u8 = 0xb;
    let (l, db) = match size {
        CodeSize::Bits32 => (0, 1),
        CodeSize::Bits64 => (1, 0),
    };
    kvm_segment { selector: size.selectors().code, type_: EXECUTE_READ_ACCESSED, l, db, ..data_segment(size) }
}

fn data_segment(code: CodeSize) -> kvm_segment {
    const READ_WRITE_ACCESSED: u8 = 0x3;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: code.selectors().data,
        type_: READ_WRITE_ACCESSED,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

/// The 8-byte descriptor of `segment`, a flat segment of DPL 0 (SDM vol. 3A, 3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let bit = |value: u8, at: u32| u64::from(value) << at;
    let flat_limit = 0x000f_0000_0000_ffff;
    flat_limit
        | bit(segment.type_, 40)
        | bit(segment.s, 44)
        | bit(segment.present, 47)
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_descriptors_are_the_usual_ones() {
        assert_eq!(descriptor(&code_segment(CodeSize::Bits64)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code_segment(CodeSize::Bits32)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data_segment(CodeSize::Bits64)), 0x00cf_9300_0000_ffff);
    }
}
