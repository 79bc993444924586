//! Why a kernel, or what goes with it, can't be loaded.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use vector14_hook::GuestError;

use super::bzimage::BzImageError;
use super::format::Format;
use super::multiboot::HeaderError;

/// Why a file of `[boot]` can't be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{part} {}: {reason}", .path.display())]
pub struct LoadError {
    /// What it is to the guest.
    pub part: Part,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
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
    /// A folder or a device.
    #[error("not a file")]
    NotAFile,
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Larger than any kernel.
    #[error("the file has {size} bytes, and no kernel has more than {limit}")]
    HugeFile {
        /// Its size, in bytes.
        size: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// None of the kinds of kernels that are known.
    #[error(
        "not a kernel of a known kind: it begins with {0:02x?}; known are Linux's bzImage and vmlinux, x86-64 ELF files, \
         and multiboot kernels"
    )]
    Unknown(Vec<u8>),
    /// Not an ELF file, where one must be.
    #[error("not an ELF file: it begins with {0:02x?}, not with 7f 45 4c 46")]
    NotElf(Vec<u8>),
    /// For another machine, or of another kind.
    #[error("not an x86-64 kernel: {0}")]
    WrongKind(String),
    /// Headers that can't be right, or point behind the end of the file.
    #[error("damaged or truncated: {0}")]
    Damaged(String),
    /// More program headers than any kernel has.
    #[error("its ELF header announces {count} program headers, and at most {limit} are loaded")]
    TooManyHeaders {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Linux's setup header.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// Multiboot's header.
    #[error(transparent)]
    Multiboot(#[from] HeaderError),
    /// A place where there is no RAM.
    #[error(
        "too large: it needs guest memory at {:#x}..{:#x}, and RAM below 4 GiB ends at {ram_end:#x}; raise vm.memory",
        .needs.start, .needs.end
    )]
    TooLarge {
        /// Guest-physical range that is asked for.
        needs: Range<u64>,
        /// Where RAM below 4 GiB ends.
        ram_end: u64,
    },
    /// A place above what boot protocols can map.
    #[error("it needs guest memory at {:#x}..{:#x}: what is loaded must lie below 4 GiB, and outside of the hole from {hole:#x}", .needs.start, .needs.end)]
    TooHigh {
        /// Guest-physical range that is asked for.
        needs: Range<u64>,
        /// Where RAM ends at the latest.
        hole: u64,
    },
    /// Nowhere is enough room.
    #[error("too large: its {size} bytes find no room in guest memory from {from:#x} to {to:#x}")]
    NoRoom {
        /// Its size, in bytes.
        size: u64,
        /// Where the place for it begins,
        from: u64,
        /// and ends.
        to: u64,
    },
    /// Two parts want the same memory, or one wants what the boot protocol needs.
    #[error("its segment at {:#x}..{:#x} overlaps {with} at {:#x}..{:#x}", .segment.start, .segment.end, .other.start, .other.end)]
    Overlap {
        /// Guest-physical range of the segment.
        segment: Range<u64>,
        /// What is there already.
        with: &'static str,
        /// Where that is.
        other: Range<u64>,
    },
    /// The entry point is in no segment.
    #[error("its entry point {0:#x} is in none of its segments")]
    Entry(u64),
    /// The command line is longer than the kernel takes.
    #[error("boot.cmdline has {length} bytes, and this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Its length, in bytes.
        length: usize,
        /// What is allowed, in bytes.
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
    /// Modules for a kernel that takes none.
    #[error("a kernel of the kind {0} takes no modules: only multiboot kernels do")]
    NoModules(Format),
    /// An initrd for a kernel that takes none.
    #[error("a multiboot kernel takes no initrd: name the file in boot.modules")]
    NoInitrd,
    /// Guest memory can't be written; only its size can be at fault.
    #[error("guest memory is too small: {0}")]
    Memory(#[from] GuestError),
}
