//! Why a kernel, or a file that goes with it, can't be loaded.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use vector14_hook::GuestError;

use super::format::Format;
use super::multiboot::HeaderError;

/// Why a file of `[boot]` can't be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{part} {}: {reason}", .path.display())]
pub struct LoadError {
    /// What the file is to the guest.
    pub part: Part,
    /// Path of the file.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub reason: LoadReason,
}

/// What a file is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `boot.kernel`.
    Kernel,
    /// `boot.initrd`.
    Initrd,
    /// One of `boot.modules`.
    Module,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Module => "module",
        })
    }
}

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadReason {
    /// The file can't be read.
    #[error("{0}")]
    Unreadable(std::io::Error),
    /// The path is a folder or a device.
    #[error("not a file")]
    NotAFile,
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The file is larger than any kernel.
    #[error("the file has {size} bytes, and no kernel has more than {limit}")]
    HugeFile {
        /// Size of the file, in bytes.
        size: u64,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// The file has no known kernel format.
    #[error(
        "not a kernel of a known kind: it begins with {0:02x?}; known are Linux's bzImage and vmlinux, x86-64 ELF files, \
         and multiboot kernels"
    )]
    Unknown(Vec<u8>),
    /// The file is not an ELF file, and the protocol requires one.
    #[error("not an ELF file: it begins with {0:02x?}, not with 7f 45 4c 46")]
    NotElf(Vec<u8>),
    /// The file is for another machine, or is not a kernel.
    #[error("not an x86-64 kernel: {0}")]
    WrongKind(String),
    /// Headers are invalid, or point beyond the end of the file.
    #[error("damaged or truncated: {0}")]
    Damaged(String),
    /// The file has more program headers than any kernel.
    #[error("its ELF header announces {count} program headers, and at most {limit} are loaded")]
    TooManyHeaders {
        /// Number of program headers.
        count: usize,
        /// Largest number allowed.
        limit: usize,
    },
    /// Linux's setup header is invalid.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// Multiboot's header is invalid.
    #[error(transparent)]
    Multiboot(#[from] HeaderError),
    /// The kernel needs memory that is not RAM.
    #[error(
        "too large: it needs guest memory at {:#x}..{:#x}, and RAM below 4 GiB ends at {ram_end:#x}; raise vm.memory",
        .needs.start, .needs.end
    )]
    TooLarge {
        /// The guest-physical range that the kernel needs.
        needs: Range<u64>,
        /// End of RAM below 4 GiB.
        ram_end: u64,
    },
    /// The kernel needs memory above what boot protocols can map.
    #[error("it needs guest memory at {:#x}..{:#x}: what is loaded must lie below 4 GiB, and outside of the hole from {hole:#x}", .needs.start, .needs.end)]
    TooHigh {
        /// The guest-physical range that the kernel needs.
        needs: Range<u64>,
        /// Start of the hole, where RAM ends at the latest.
        hole: u64,
    },
    /// No free range is large enough.
    #[error("too large: its {size} bytes find no room in guest memory from {from:#x} to {to:#x}")]
    NoRoom {
        /// Size of the file, in bytes.
        size: u64,
        /// Start of the searched range.
        from: u64,
        /// End of the searched range.
        to: u64,
    },
    /// Two parts need the same memory, or a part overlaps what the boot protocol needs.
    #[error("its segment at {:#x}..{:#x} overlaps {with} at {:#x}..{:#x}", .segment.start, .segment.end, .other.start, .other.end)]
    Overlap {
        /// Guest-physical range of the segment.
        segment: Range<u64>,
        /// What already occupies the memory.
        with: &'static str,
        /// Guest-physical range of that part.
        other: Range<u64>,
    },
    /// The entry point is not in any segment.
    #[error("its entry point {0:#x} is in none of its segments")]
    Entry(u64),
    /// The command line is longer than the kernel accepts.
    #[error("boot.cmdline has {length} bytes, and this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Length of the command line, in bytes.
        length: usize,
        /// Longest command line that the kernel accepts, in bytes.
        limit: u64,
    },
    /// The kernel and its modules leave no room for the boot information.
    #[error(
        "boot.cmdline and boot.modules make {size} bytes of boot information, and the kernel leaves no such room at {:#x}..{:#x}",
        .within.start, .within.end
    )]
    InfoTooLarge {
        /// Size of the boot information, in bytes.
        size: usize,
        /// Guest-physical range that it must lie in.
        within: Range<u64>,
    },
    /// Modules are given to a kernel that takes none.
    #[error("a kernel of the kind {0} takes no modules: only multiboot kernels do")]
    NoModules(Format),
    /// An initrd is given to a kernel that takes none.
    #[error("a multiboot kernel takes no initrd: name the file in boot.modules")]
    NoInitrd,
    /// Guest memory can't be written. The only possible cause is its size.
    #[error("guest memory is too small: {0}")]
    Memory(#[from] GuestError),
}

/// What can be wrong with a bzImage.
#[derive(Debug, thiserror::Error)]
pub enum BzImageError {
    /// The file is truncated.
    #[error("truncated: its {what} would end at byte {end}, and the file has {length}")]
    Truncated {
        /// The part that is truncated.
        what: &'static str,
        /// Where the part should end, in bytes.
        end: usize,
        /// Size of the file, in bytes.
        length: usize,
    },
    /// The setup header is shorter than its version requires.
    #[error("damaged: its setup header ends at byte {end:#x} of the file, and must reach {needed:#x}")]
    ShortHeader {
        /// Offset of its end in the file.
        end: usize,
        /// Offset that it must reach.
        needed: usize,
    },
    /// The kernel's boot protocol is too old.
    #[error("too old: it has boot protocol {}.{:02}, and 2.12 is needed (Linux 3.8)", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    /// The kernel is one that is loaded below 1 MiB.
    #[error("a zImage, to be loaded below 1 MiB (loadflags {0:#x}): make a bzImage")]
    ZImage(u8),
    /// The kernel has no 64-bit entry point.
    #[error("not an x86-64 kernel: it has no 64-bit entry point (xloadflags {0:#x})")]
    Not64Bit(u16),
    /// The alignment is not a power of two.
    #[error("damaged: kernel_alignment is {0:#x}, not a power of two")]
    Alignment(u32),
}
