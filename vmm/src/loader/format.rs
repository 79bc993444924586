//! What kind of kernel a file is.

use std::fmt;

use vector14_hook::GuestKind;

use super::error::LoadReason;
use super::multiboot::Search;
use super::{bzimage, elf, multiboot, notes};
use crate::config::ProtocolChoice;

/// What kind of kernel a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Linux as distributions ship it: compressed, with a setup header.
    BzImage,
    /// Linux as its build links it: an ELF file.
    Vmlinux,
    /// Any other x86-64 ELF file, entered by the Linux 64-bit boot protocol.
    Elf,
    /// A kernel with a Multiboot header of version 1.
    Multiboot,
}

impl Format {
    /// Recognises a kernel; `choice` leaves less to be recognised, or nothing.
    ///
    /// A file that is several things at once is the first of these: a bzImage, a multiboot kernel, a vmlinux, an ELF
    /// kernel.
    pub(super) fn of(image: &[u8], choice: ProtocolChoice) -> Result<Self, LoadReason> {
        match choice {
            ProtocolChoice::Auto => detect(image),
            ProtocolChoice::Elf => Ok(Self::Elf),
            ProtocolChoice::Linux if bzimage::is_bzimage(image) => Ok(Self::BzImage),
            ProtocolChoice::Linux => Ok(Self::Vmlinux),
            ProtocolChoice::Multiboot => Ok(Self::Multiboot),
        }
    }

    /// What kind of guest it makes.
    #[must_use]
    pub fn guest(self) -> GuestKind {
        match self {
            Self::BzImage | Self::Vmlinux => GuestKind::Linux,
            Self::Elf | Self::Multiboot => GuestKind::Other,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BzImage => "bzImage",
            Self::Vmlinux => "vmlinux",
            Self::Elf => "ELF",
            Self::Multiboot => "multiboot",
        })
    }
}

fn detect(image: &[u8]) -> Result<Format, LoadReason> {
    if bzimage::is_bzimage(image) {
        return Ok(Format::BzImage);
    }
    if let Some(other) = foreign_image(image) {
        return Err(LoadReason::WrongKind(other.to_owned()));
    }
    // A header whose checksum is wrong is one of a kernel that can't be anything else. An ELF64 file can.
    let search = multiboot::search(image);
    match search {
        Search::Found(_) => Ok(Format::Multiboot),
        Search::BadChecksum { .. } if !elf::is_elf64(image) => Ok(Format::Multiboot),
        Search::BadChecksum { .. } | Search::Nothing if elf::is_elf(image) => {
            let file = elf::parse(image, elf::Width::Bits64)?;
            Ok(if notes::is_linux(&file) { Format::Vmlinux } else { Format::Elf })
        }
        Search::BadChecksum { .. } | Search::Nothing => {
            Err(LoadReason::Unknown(image.iter().copied().take(4).collect()))
        }
    }
}

/// Kernel images that are no ELF files and have a magic number of their own, by offset (Linux,
/// Documentation/arch/arm64/booting.rst and riscv/boot-image-header.rst), and what kernels come packed in.
fn foreign_image(image: &[u8]) -> Option<&'static str> {
    const FOREIGN: [(usize, &[u8], &str); 6] = [
        (0x38, b"ARM\x64", "a Linux Image for ARM64"),
        (0x38, b"RSC\x05", "a Linux Image for RISC-V"),
        (0x24, b"\x18\x28\x6f\x01", "a Linux zImage for 32-bit ARM"),
        (0, b"\x1f\x8b", "a gzip file: unpack it first"),
        (0, b"\xfd7zXZ", "an xz file: unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    ];
    let found = FOREIGN.iter().find(|(at, magic, _)| image.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    found.map(|(_, _, name)| *name)
}
