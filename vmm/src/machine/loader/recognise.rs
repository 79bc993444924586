//! Recognises the format of a kernel's file.

use super::error::LoadReason;
use super::format::Format;
use super::multiboot::Search;
use super::{bzimage, elf, multiboot, notes};
use crate::machine::config::ProtocolChoice;

/// Recognises the format of a kernel; `choice` restricts what it may be.
///
/// If several formats match, the first of these is used: bzImage, multiboot, vmlinux, other ELF.
pub(super) fn recognise(image: &[u8], choice: ProtocolChoice) -> Result<Format, LoadReason> {
    match choice {
        ProtocolChoice::Auto => detect(image),
        ProtocolChoice::Elf => Ok(Format::Elf),
        ProtocolChoice::Linux if bzimage::is_bzimage(image) => Ok(Format::BzImage),
        ProtocolChoice::Linux => Ok(Format::Vmlinux),
        ProtocolChoice::Multiboot => Ok(Format::Multiboot),
    }
}

fn detect(image: &[u8]) -> Result<Format, LoadReason> {
    if bzimage::is_bzimage(image) {
        return Ok(Format::BzImage);
    }
    if let Some(other) = foreign_image(image) {
        return Err(LoadReason::WrongKind(other.to_owned()));
    }
    // A file whose header has a wrong checksum is a multiboot kernel, unless it is an ELF64 file, which may be another
    // kernel.
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

/// Recognises images that are not ELF files and have a magic number of their own (Linux,
/// Documentation/arch/arm64/booting.rst and riscv/boot-image-header.rst), and the compression formats of kernels.
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
