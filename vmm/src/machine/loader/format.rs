//! The formats of a kernel's file.

use std::fmt;

use vector14_hook::GuestKind;

/// The format of a kernel's file.
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
    /// The kind of guest that a kernel of this format is.
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
