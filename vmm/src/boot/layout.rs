//! What lies where in low memory when a kernel is entered.

use std::ops::Range;

use vector14_hook::Pa;

/// Low memory that the boot protocols use: no part of a kernel may lie here.
pub(crate) const RESERVED: Range<u64> = 0x500..0x3_0000;

/// The descriptor table that the kernel is entered with.
pub(super) const GDT: Pa = Pa(0x500);
/// `struct boot_params`, a page.
pub(crate) const BOOT_PARAMS: Pa = Pa(0x7000);
/// Page tables: the root,
pub(super) const PML4: Pa = Pa(0x9000);
/// below it,
pub(super) const PDPT: Pa = Pa(0xa000);
/// and a page directory for each of the lowest 4 GiB.
pub(super) const DIRECTORIES: Pa = Pa(0xb000);
/// Multiboot's boot information, with everything that it points at.
pub(crate) const MULTIBOOT_INFO: Range<u64> = 0x1_0000..0x3_0000;
/// The command line of the Linux boot protocol.
pub(crate) const CMDLINE: Pa = Pa(0x2_0000);

/// Longest command line, in bytes: more than Linux takes, which is 2047.
pub(crate) const CMDLINE_LIMIT: u64 = 4095;

/// Conventional memory ends here: up to [`HIGH_MEMORY`] is what a PC has for firmware and video memory, and where
/// firmware's tables are looked for.
pub(crate) const EBDA: u64 = 0x9_fc00;
/// From here on, memory is RAM again.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
