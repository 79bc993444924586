//! Linux's bzImage: the setup header (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"), followed by the
//! protected-mode kernel, which is entered at its 64-bit entry point.

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vector14_hook::Pa;
use vm_memory::ByteValued;

use super::error::{BzImageError, LoadReason};
use super::space::Space;
use super::zero_page::LongModeKernel;
use crate::machine::boot::layout::HIGH_MEMORY;

/// Offset of `boot_flag` in the file.
const BOOT_FLAG: usize = 0x1fe;
/// Offset of `header`, the magic number.
const MAGIC: usize = 0x202;
/// End of `init_size`, the last field that is needed.
const FIELDS_END: usize = 0x264;
/// Offset of the setup header.
const SETUP_HEADER: usize = 0x1f1;
/// Offset of the byte that gives the end of the setup header, counted from [`MAGIC`].
const HEADER_LENGTH: usize = 0x201;

/// Oldest supported protocol: 2.12 introduced `xloadflags`, which say reliably whether there is a 64-bit entry point.
const OLDEST_PROTOCOL: u16 = 0x020c;
const SECTOR: usize = 512;
/// Offset of the 64-bit entry point in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// A bzImage that is complete.
pub(super) struct BzImage<'a> {
    header: setup_header,
    /// The protected-mode kernel, which is loaded.
    kernel: &'a [u8],
}

/// Whether the file has a setup header, or would have one if it were not truncated.
pub(super) fn is_bzimage(image: &[u8]) -> bool {
    let has = |at: usize, bytes: &[u8]| image.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    has(MAGIC, b"HdrS") || has(BOOT_FLAG, &[0x55, 0xaa]) && image.len() < MAGIC + 4
}

impl<'a> BzImage<'a> {
    pub(super) fn parse(image: &'a [u8]) -> Result<Self, BzImageError> {
        let length = image.len();
        let truncated = |what, end| BzImageError::Truncated { what, end, length };
        let end = MAGIC + image.get(HEADER_LENGTH).map_or(0, |length| usize::from(*length));
        let version =
            image.get(MAGIC + 4..).and_then(|rest| rest.first_chunk()).map(|bytes| u16::from_le_bytes(*bytes));
        let version = version.ok_or(truncated("setup header", FIELDS_END))?;
        if version < OLDEST_PROTOCOL {
            return Err(BzImageError::OldProtocol(version));
        }
        if end < FIELDS_END {
            return Err(BzImageError::ShortHeader { end, needed: FIELDS_END });
        }
        let header = read_header(image.get(SETUP_HEADER..end).ok_or(truncated("setup header", end))?);
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(BzImageError::ZImage(header.loadflags));
        }
        if header.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(BzImageError::Not64Bit(header.xloadflags));
        }
        if !header.kernel_alignment.is_power_of_two() {
            return Err(BzImageError::Alignment(header.kernel_alignment));
        }
        // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
        let sectors = if header.setup_sects == 0 { 4 } else { usize::from(header.setup_sects) };
        let setup_end = (1 + sectors) * SECTOR;
        let kernel = image.get(setup_end..).ok_or(truncated("setup code", setup_end))?;
        // The size is in paragraphs of 16 bytes.
        let paragraphs = usize::try_from(header.syssize).unwrap_or(usize::MAX);
        let size = paragraphs.saturating_mul(16).max(0x400);
        if kernel.len() < size {
            return Err(truncated("protected-mode kernel", setup_end.saturating_add(size)));
        }
        Ok(Self { header, kernel })
    }

    /// Places the kernel where it can run, with the memory around it that it needs to unpack itself (`init_size`).
    pub(super) fn place(mut self, space: &mut Space<'_>) -> Result<LongModeKernel, LoadReason> {
        let preferred = self.header.pref_address;
        // A relocatable kernel runs where it is loaded, but not below its preferred address.
        let start = if self.header.relocatable_kernel == 0 {
            Some(preferred)
        } else {
            preferred.max(HIGH_MEMORY).checked_next_multiple_of(u64::from(self.header.kernel_alignment))
        };
        let size = u64::from(self.header.init_size).max(self.kernel.len() as u64);
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let range = range.ok_or_else(|| LoadReason::Damaged(format!("pref_address is {preferred:#x}")))?;
        space.claim(range.clone(), "another one")?;
        space.memory().write(Pa(range.start), self.kernel)?;
        // The range is below 4 GiB, because `claim` accepts no other.
        self.header.code32_start = u32::try_from(range.start).unwrap_or_default();
        Ok(LongModeKernel {
            rip: Pa(range.start + ENTRY_64),
            cmdline_limit: u64::from(self.header.cmdline_size),
            initrd_limit: u64::from(self.header.initrd_addr_max) + 1,
            header: self.header,
        })
    }
}

/// The setup header in full length; fields that are missing in this kernel's version are 0.
fn read_header(bytes: &[u8]) -> setup_header {
    let mut header = setup_header::default();
    let length = bytes.len().min(size_of::<setup_header>());
    header.as_mut_slice()[..length].copy_from_slice(&bytes[..length]);
    header
}
