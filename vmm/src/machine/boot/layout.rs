//! The layout of low memory when a kernel is entered.

use std::ops::Range;

use vector14_hook::Pa;

/// The BIOS data area (`bios`), followed by the descriptor table for the kernel's entry. No part of a kernel may be
/// loaded here.
pub(crate) const BDA_AND_GDT: Range<u64> = 0x400..0x520;
/// The descriptor table for the kernel's entry.
pub(super) const GDT: Pa = Pa(0x500);

/// Low memory that the Linux boot protocol uses: the parts below. No part of a kernel that is entered in long mode may
/// be loaded here.
pub(crate) const LONG_MODE: Range<u64> = 0x7000..0xf000;
/// `struct boot_params`, one page.
pub(crate) const BOOT_PARAMS: Pa = Pa(0x7000);
/// The command line of the Linux boot protocol, one page.
pub(crate) const CMDLINE: Pa = Pa(0x8000);
/// The root of the page tables.
pub(super) const PML4: Pa = Pa(0x9000);
/// The page-directory-pointer table.
pub(super) const PDPT: Pa = Pa(0xa000);
/// The page directories, one for each of the lowest 4 GiB.
pub(super) const DIRECTORIES: Pa = Pa(0xb000);

/// Range for Multiboot's boot information and everything that it points to. The first 64 KiB are left to the kernel,
/// which has its own real-mode code there.
pub(crate) const MULTIBOOT_INFO: Range<u64> = 0x1_0000..EBDA;

/// Longest command line, in bytes: more than Linux takes, which is 2047.
pub(crate) const CMDLINE_LIMIT: u64 = 4095;

/// End of conventional memory, where the extended BIOS data area begins. A PC has firmware and video memory from here
/// to [`HIGH_MEMORY`], and kernels search that range for firmware's tables.
pub(crate) const EBDA: u64 = 0x9_fc00;
/// Start of the RAM above the range of firmware and video memory.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
