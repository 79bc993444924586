//! The boot parameters of kernels that are entered in long mode: `struct boot_params`, Linux's "zero page"
//! (Documentation/arch/x86/zero-page.rst).

use std::ops::Range;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vector14_hook::{GuestError, Pa};
use vm_memory::{Bytes, GuestAddress};

use super::error::LoadReason;
use super::map::memory_map;
use crate::machine::acpi;
use crate::machine::boot::layout::{BOOT_PARAMS, CMDLINE, CMDLINE_LIMIT};
use crate::machine::memory::Memory;

/// Longest command line of a Linux kernel that declares no limit, in bytes: `COMMAND_LINE_SIZE` without its NUL.
pub(super) const LINUX_CMDLINE_LIMIT: u64 = 2047;

/// Default of `initrd_addr_max` without a setup header, as in Linux: the address of the last byte that an initrd may
/// occupy.
const INITRD_ADDR_MAX: u64 = 0x7fff_ffff;

/// Type of a boot loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xff;

/// A long-mode kernel in memory, and what is needed to place the rest.
#[derive(Clone, Copy)]
pub(super) struct LongModeKernel {
    /// The entry point.
    pub(super) rip: Pa,
    /// The setup header, which begins its boot parameters.
    pub(super) header: setup_header,
    /// Longest command line that the kernel accepts, in bytes.
    pub(super) cmdline_limit: u64,
    /// The highest end of an initrd.
    pub(super) initrd_limit: u64,
}

impl LongModeKernel {
    /// A kernel without a setup header. It gets a header with the fields that loaders and kernels check.
    pub(super) fn of_elf(rip: Pa, cmdline_limit: u64) -> Self {
        let header = setup_header {
            boot_flag: 0xaa55,
            header: 0x5372_6448, // "HdrS"
            version: 0x020f,
            ..setup_header::default()
        };
        Self { rip, header, cmdline_limit, initrd_limit: INITRD_ADDR_MAX + 1 }
    }
}

/// Writes the command line and the boot parameters. An empty `initrd` means none.
pub(super) fn write(
    kernel: &LongModeKernel,
    initrd: &Range<u64>,
    cmdline: &str,
    memory: &Memory,
) -> Result<(), LoadReason> {
    let limit = kernel.cmdline_limit.min(CMDLINE_LIMIT);
    if cmdline.len() as u64 > limit {
        return Err(LoadReason::CmdlineTooLong { length: cmdline.len(), limit });
    }
    memory.write(CMDLINE, &[cmdline.as_bytes(), &[0]].concat())?;
    let mut params = boot_params { hdr: kernel.header, ..boot_params::default() };
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.cmd_line_ptr = low(CMDLINE.0);
    params.hdr.cmdline_size = low(limit);
    params.acpi_rsdp_addr = acpi::RSDP.0;
    params.hdr.ramdisk_image = low(initrd.start);
    params.hdr.ramdisk_size = low(initrd.end - initrd.start);
    let map = memory_map(memory);
    params.e820_entries = u8::try_from(map.len()).unwrap_or_default();
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr: range.start, size: range.end - range.start, r#type: kind as u32 };
    }
    let outside = GuestError::OutsideMemory(BOOT_PARAMS);
    memory.map().write_obj(params, GuestAddress(BOOT_PARAMS.0)).map_err(|_| LoadReason::Memory(outside))
}

/// An address as 32 bits: everything that is loaded lies below 4 GiB.
fn low(address: u64) -> u32 {
    debug_assert!(u32::try_from(address).is_ok(), "{address:#x}");
    u32::try_from(address).unwrap_or(u32::MAX)
}
