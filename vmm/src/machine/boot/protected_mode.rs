//! Multiboot's machine state (Multiboot Specification 0.6.96, 3.2): 32-bit protected mode with flat segments, paging and
//! interrupts off, the magic number in EAX, the boot information at EBX.
//!
//! A20 needs no setup: KVM has no A20 gate.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vector14_hook::paging::{CR0_ET, CR0_PE, CR0_PG};
use vector14_hook::{GuestError, Pa};

use super::segment::{self, CodeSize};
use crate::machine::memory::Memory;

/// Tells the kernel that it was loaded by a Multiboot loader.
const LOADER_MAGIC: u64 = 0x2bad_b002;

/// Writes the descriptor table. A kernel must not rely on it: the specification leaves GDTR undefined.
pub(super) fn prepare_memory(memory: &Memory) -> Result<(), GuestError> {
    segment::write_gdt(CodeSize::Bits32, memory)
}

/// Registers at the entry.
pub(super) fn registers(eip: Pa, info: Pa, mut sregs: kvm_sregs) -> (kvm_regs, kvm_sregs) {
    segment::load(CodeSize::Bits32, &mut sregs);
    sregs.cr0 = (sregs.cr0 | CR0_PE | CR0_ET) & !CR0_PG;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
    let regs = kvm_regs { rip: eip.0, rax: LOADER_MAGIC, rbx: info.0, rflags: 1 << 1, ..kvm_regs::default() };
    (regs, sregs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_table_has_what_the_selectors_select() {
        let memory = Memory::new(2 << 20).unwrap();
        prepare_memory(&memory).unwrap();
        let (_, sregs) = registers(Pa(0x10_0000), Pa(0x1_0000), kvm_sregs::default());
        let selected = |selector: u16| memory.load(Pa(sregs.gdt.base + u64::from(selector))).unwrap();
        assert_eq!(selected(sregs.cs.selector), 0x00cf_9b00_0000_ffff);
        assert_eq!(selected(sregs.ds.selector), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn registers_are_as_the_specification_has_them() {
        let (regs, sregs) = registers(Pa(0x10_0000), Pa(0x1_0000), kvm_sregs::default());
        assert_eq!((regs.rip, regs.rax, regs.rbx), (0x10_0000, 0x2bad_b002, 0x1_0000));
        assert_eq!(regs.rflags & (1 << 9 | 1 << 17), 0, "interrupts off, no virtual-8086 mode");
        assert_eq!(sregs.cr0 & (CR0_PE | CR0_PG), CR0_PE);
        assert_eq!((sregs.cs.selector, sregs.ds.selector, sregs.ss.selector), (0x08, 0x10, 0x10));
        let segments = [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss];
        assert!(segments.iter().all(|data| (data.base, data.limit, data.type_ & 0xa) == (0, 0xffff_ffff, 2)));
        assert_eq!((sregs.cs.base, sregs.cs.limit, sregs.cs.db, sregs.cs.l), (0, 0xffff_ffff, 1, 0));
    }
}
