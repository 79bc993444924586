//! The machine state of the Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long
//! mode, flat segments, the lowest 4 GiB identity-mapped, interrupts off, RSI pointing to the boot parameters.

use kvm_bindings::{kvm_regs, kvm_sregs};
use vector14_hook::paging::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME};
use vector14_hook::{GuestError, Pa};

use super::layout::{DIRECTORIES, PDPT, PML4};
use super::segment::{self, CodeSize};
use crate::machine::memory::Memory;

/// Writes the descriptor table and the page tables.
pub(super) fn prepare_memory(memory: &Memory) -> Result<(), GuestError> {
    segment::write_gdt(CodeSize::Bits64, memory)?;
    write_identity_map(memory)
}

/// Identity-maps the lowest 4 GiB in pages of 2 MiB. Everything that is loaded lies there.
fn write_identity_map(memory: &Memory) -> Result<(), GuestError> {
    const PRESENT_WRITE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let write = |table: Pa, index: u64, entry: u64| memory.write(table.offset(8 * index), &entry.to_le_bytes());
    write(PML4, 0, PDPT.0 | PRESENT_WRITE)?;
    for gib in 0..4 {
        let directory = DIRECTORIES.offset(gib << 12);
        write(PDPT, gib, directory.0 | PRESENT_WRITE)?;
        for index in 0..512 {
            write(directory, index, (gib << 30 | index << 21) | PRESENT_WRITE | LARGE)?;
        }
    }
    Ok(())
}

/// Registers at the entry.
pub(super) fn registers(rip: Pa, boot_params: Pa, mut sregs: kvm_sregs) -> (kvm_regs, kvm_sregs) {
    segment::load(CodeSize::Bits64, &mut sregs);
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = PML4.0;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    let regs = kvm_regs { rip: rip.0, rsi: boot_params.0, rflags: 1 << 1, ..kvm_regs::default() };
    (regs, sregs)
}

#[cfg(test)]
mod tests {
    use vector14_hook::{Cr3, Va};

    use super::*;
    use vector14_hook::paging::{Mode, Paging};

    #[test]
    fn the_lowest_4_gib_are_mapped_to_themselves() {
        let memory = Memory::new(2 << 20).unwrap();
        prepare_memory(&memory).unwrap();
        let paging = Paging { cr3: Cr3(PML4.0), mode: Mode::Long { levels: 4 }, no_execute: false };
        for address in [0, 0x12_3456, 0xfee0_0000, 0xffff_ffff] {
            assert_eq!(paging.translate(Va(address), |slot| memory.load(slot)).unwrap().address, Pa(address));
        }
        assert!(paging.translate(Va(1 << 32), |slot| memory.load(slot)).is_err());
    }
}
