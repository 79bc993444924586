//! The header (3.1), which is searched for in the first 8 KiB of the file and is identified by its magic number and
//! checksum.

/// The whole header lies in this number of bytes at the beginning of the file.
const SEARCHED: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;
/// Magic number of a Multiboot 2 header.
const MAGIC_2: u32 = 0xe852_50d6;

/// Flag: modules must be page-aligned, which they always are here.
const PAGE_ALIGN: u32 = 1 << 0;
/// Flag: the boot information must describe memory, which it always does here.
const MEMORY_INFO: u32 = 1 << 1;
/// Flag: a video mode must be set, which is not supported.
const VIDEO_MODE: u32 = 1 << 2;
/// Flag: the header, and not the ELF header, says where the kernel is loaded.
const ADDRESSES: u32 = 1 << 16;
/// Flags that a loader must know, or else refuse the kernel (3.1.2).
const REQUIRED: u32 = 0xffff;

/// What can be wrong with a multiboot header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file has no multiboot header.
    #[error("no multiboot header (1badb002) in its first {SEARCHED} bytes")]
    Missing,
    /// The header is one of version 2.
    #[error("a multiboot 2 kernel: only version 1 of Multiboot is known")]
    Version2,
    /// The sum of magic number, flags and checksum is not 0.
    #[error("multiboot header at byte {offset:#x}: magic number, flags and checksum make {sum:#x}, and must make 0")]
    Checksum {
        /// Offset of the header in the file.
        offset: usize,
        /// The sum, which should be 0.
        sum: u32,
    },
    /// The header extends beyond the end of the file or of the searched range.
    #[error("multiboot header at byte {offset:#x}: its address fields are truncated")]
    Truncated {
        /// Offset of the header in the file.
        offset: usize,
    },
    /// The header asks for features that are not supported.
    #[error("multiboot header: flags {flags:#x} ask for something that is not offered: bits {unknown:#x}{}", video(*.unknown))]
    Flags {
        /// All flags of the header.
        flags: u32,
        /// The flags that are not supported.
        unknown: u32,
    },
    /// Address fields contradict each other or the file.
    #[error("multiboot header: {what}: header {header:#x}, load {load:#x}..{load_end:#x}, bss end {bss_end:#x}", header = .addresses.header,
        load = .addresses.load, load_end = .addresses.load_end, bss_end = .addresses.bss_end)]
    Addresses {
        /// What is wrong with the fields.
        what: &'static str,
        /// The address fields.
        addresses: Addresses,
    },
}

fn video(unknown: u32) -> &'static str {
    if unknown & VIDEO_MODE == 0 { "" } else { " (a video mode: there is no display)" }
}

/// A valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine::loader) struct Header {
    /// Offset of the header in the file.
    pub(super) offset: usize,
    /// Where the kernel is loaded; `None`: where its ELF header says.
    pub(super) addresses: Option<Addresses>,
}

/// The address fields of a header (3.1.3), all of them physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Address of the header itself, which ties offsets in the file to addresses.
    pub header: u32,
    /// Start of the part that is loaded from the file.
    pub load: u32,
    /// End of the part that is loaded from the file; 0: the end of the file.
    pub load_end: u32,
    /// End of the zeroed memory after that part; 0: there is none.
    pub bss_end: u32,
    /// The entry point.
    pub entry: u32,
}

/// The result of a search for a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine::loader) enum Search {
    /// A magic number with a valid checksum is at this offset in the file.
    Found(usize),
    /// There is only a magic number with a wrong checksum.
    BadChecksum {
        offset: usize,
        sum: u32,
    },
    Nothing,
}

/// Searches for a header.
pub(in crate::machine::loader) fn search(image: &[u8]) -> Search {
    let searched = &image[..image.len().min(SEARCHED)];
    let mut bad = Search::Nothing;
    for offset in (0..searched.len()).step_by(4).filter(|offset| word(searched, *offset) == Some(MAGIC)) {
        let [flags, checksum] = [4, 8].map(|field| word(searched, offset + field));
        let (Some(flags), Some(checksum)) = (flags, checksum) else { continue };
        let sum = MAGIC.wrapping_add(flags).wrapping_add(checksum);
        if sum == 0 {
            return Search::Found(offset);
        }
        if bad == Search::Nothing {
            bad = Search::BadChecksum { offset, sum };
        }
    }
    bad
}

/// Reads the header, and refuses one that asks for features that are not supported.
pub(super) fn read(image: &[u8]) -> Result<Header, HeaderError> {
    let searched = &image[..image.len().min(SEARCHED)];
    let offset = match search(image) {
        Search::Found(offset) => offset,
        Search::BadChecksum { offset, sum } => return Err(HeaderError::Checksum { offset, sum }),
        Search::Nothing => {
            let mut offsets = (0..searched.len()).step_by(8);
            let is_version_2 = offsets.any(|offset| word(searched, offset) == Some(MAGIC_2));
            return Err(if is_version_2 { HeaderError::Version2 } else { HeaderError::Missing });
        }
    };
    let field = |at: usize| word(searched, offset + at).ok_or(HeaderError::Truncated { offset });
    let flags = field(4)?;
    let unknown = flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO);
    if unknown != 0 {
        return Err(HeaderError::Flags { flags, unknown });
    }
    let addresses = if flags & ADDRESSES == 0 {
        None
    } else {
        let [header, load, load_end, bss_end, entry] = [field(12)?, field(16)?, field(20)?, field(24)?, field(28)?];
        Some(Addresses { header, load, load_end, bss_end, entry })
    };
    Ok(Header { offset, addresses })
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}
