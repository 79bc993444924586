//! The state that a kernel is entered in: the Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit
//! Boot Protocol"). Long mode, all memory mapped to itself, RSI at the boot parameters.

use std::ops::Range;

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vector14_hook::{GuestError, Pa};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::Memory;

/// Low memory that the boot protocol uses: no segment of a kernel may lie here.
pub(crate) const RESERVED: Range<u64> = 0x500..0x3_0000;

const GDT: Pa = Pa(0x500);
const BOOT_PARAMS: Pa = Pa(0x7000);
const PML4: Pa = Pa(0x9000);
const PDPT: Pa = Pa(0xa000);
/// A page directory for each of the lowest 4 GiB.
const DIRECTORIES: Pa = Pa(0xb000);
const CMDLINE: Pa = Pa(0x2_0000);

/// Longest command line, in bytes: more than any kernel takes (Linux takes 2047).
pub const CMDLINE_LIMIT: usize = 4095;

const E820_RAM: u32 = 1;
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Writes boot parameters, GDT and page tables into low memory.
///
/// # Errors
/// Memory does not reach to the end of [`RESERVED`].
pub(crate) fn prepare_memory(memory: &Memory, cmdline: &str) -> Result<(), GuestError> {
    memory.write(CMDLINE, &[cmdline.as_bytes(), &[0]].concat())?;
    write_boot_params(memory, cmdline.len())?;
    for (index, descriptor) in [0, 0, descriptor(&code_segment()), descriptor(&data_segment())].into_iter().enumerate()
    {
        memory.write(GDT.offset(8 * index as u64), &descriptor.to_le_bytes())?;
    }
    write_identity_map(memory)
}

fn write_boot_params(memory: &Memory, cmdline_length: usize) -> Result<(), GuestError> {
    let mut params = boot_params::default();
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = 0x5372_6448; // "HdrS"
    params.hdr.version = 0x020f;
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = u32::try_from(CMDLINE.0).unwrap_or_default();
    params.hdr.cmdline_size = u32::try_from(cmdline_length).unwrap_or_default();
    let ram = memory.ram();
    params.e820_entries = u8::try_from(ram.len()).unwrap_or_default();
    for (entry, (addr, size)) in params.e820_table.iter_mut().zip(ram) {
        *entry = boot_e820_entry { addr, size, r#type: E820_RAM };
    }
    let outside = GuestError::OutsideMemory(BOOT_PARAMS);
    memory.map().write_obj(params, GuestAddress(BOOT_PARAMS.0)).map_err(|_| outside)
}

/// Maps the lowest 4 GiB to themselves, in pages of 2 MiB.
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

/// Registers of the vCPU that enters the kernel at `entry`; `sregs` are those that it has after reset.
pub(crate) fn entry_state(entry: Pa, mut sregs: kvm_sregs) -> (kvm_regs, kvm_sregs) {
    sregs.cs = code_segment();
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data_segment();
    }
    sregs.gdt = kvm_dtable { base: GDT.0, limit: 4 * 8 - 1, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable::default();
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = PML4.0;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    let regs = kvm_regs { rip: entry.0, rsi: BOOT_PARAMS.0, rflags: 1 << 1, ..kvm_regs::default() };
    (regs, sregs)
}

fn code_segment() -> kvm_segment {
    const EXECUTE_READ_ACCESSED: u8 = 0xb;
    kvm_segment { selector: CODE_SELECTOR, type_: EXECUTE_READ_ACCESSED, l: 1, db: 0, ..data_segment() }
}

fn data_segment() -> kvm_segment {
    const READ_WRITE_ACCESSED: u8 = 0x3;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: DATA_SELECTOR,
        type_: READ_WRITE_ACCESSED,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

/// The 8 bytes that `segment`, flat and of DPL 0, has in a descriptor table (SDM vol. 3A, 3.4.5).
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
    use vector14_hook::{Cr3, Va};

    use super::*;
    use crate::walk::Paging;

    #[test]
    fn the_lowest_4_gib_are_mapped_to_themselves() {
        let memory = Memory::new(2 << 20).unwrap();
        prepare_memory(&memory, "a=b").unwrap();
        let paging = Paging { cr3: Cr3(PML4.0), levels: 4, no_execute: false };
        for address in [0, 0x12_3456, 0xfee0_0000, 0xffff_ffff] {
            assert_eq!(paging.translate(Va(address), |slot| memory.load(slot)).unwrap().address, Pa(address));
        }
        assert!(paging.translate(Va(1 << 32), |slot| memory.load(slot)).is_err());
    }

    #[test]
    fn boot_parameters_are_where_the_protocol_has_them() {
        let memory = Memory::new(64 << 20).unwrap();
        prepare_memory(&memory, "scenario=demand").unwrap();
        let word = |offset| {
            let mut bytes = [0; 4];
            memory.read(BOOT_PARAMS.offset(offset), &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        };
        assert_eq!(word(0x1e8) & 0xff, 1);
        assert_eq!((word(0x2d0), word(0x2d8), word(0x2e0)), (0, 64 << 20, E820_RAM));
        let mut cmdline = [0xff; 16];
        memory.read(Pa(u64::from(word(0x228))), &mut cmdline).unwrap();
        assert_eq!(&cmdline, b"scenario=demand\0");
    }

    #[test]
    fn flat_descriptors_are_the_usual_ones() {
        assert_eq!(descriptor(&code_segment()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data_segment()), 0x00cf_9300_0000_ffff);
    }
}
