//! What lies where in low memory when a kernel is entered.

use std::ops::Range;

use vector14_hook::Pa;

/// The BIOS data area (`bios`), and after it the descriptor table that the kernel is entered with. No part of a kernel may
/// lie here.
pub(crate) const BDA_AND_GDT: Range<u64> = 0x400..0x520;
/// The descriptor table that the kernel is entered with.
pub(super) const GDT: Pa = Pa(0x500);

/// What the Linux boot protocol puts into low memory: the parts below. No part of a kernel that is entered in long mode may
/// lie here.
pub(crate) const LONG_MODE: Range<u64> = 0x7000..0xf000;
/// `struct boot_params`, a page.
pub(crate) const BOOT_PARAMS: Pa = Pa(0x7000);
/// The command line of the Linux boot protocol, a page.
pub(crate) const CMDLINE: Pa = Pa(0x8000);
/// Page tables: the root,
pub(super) const PML4: Pa = Pa(0x9000);
/// below it,
pub(super) const PDPT: Pa = Pa(0xa000);
/// and a page directory for each of the lowest 4 GiB.
pub(super) const DIRECTORIES: Pa = Pa(0xb000);

/// Multiboot's boot information, with everything that it points at, goes where there is room in here. The first 64 KiB are
/// left to the kernel, which has its own real-mode code there.
pub(crate) const MULTIBOOT_INFO: Range<u64> = 0x1_0000..EBDA;

/// Longest command line, in bytes: more than Linux takes, which is 2047.
pub(crate) const CMDLINE_LIMIT: u64 = 4095;

/// Conventional memory ends here, with the extended BIOS data area. Up to [`HIGH_MEMORY`] is what a PC has for firmware and
/// video memory, and where firmware's tables are looked for.
pub(crate) const EBDA: u64 = 0x9_fc00;
/// From here on, memory is RAM again.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;
