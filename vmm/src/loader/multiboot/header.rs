//! The header (3.1): looked for in the first 8 KiB of the file, known by its magic number and checksum.

/// The whole header lies in this many bytes at the beginning of the file.
const SEARCHED: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;
/// What a Multiboot 2 header begins with.
const MAGIC_2: u32 = 0xe852_50d6;

/// Flags: modules begin at pages, which they always do here;
const PAGE_ALIGN: u32 = 1 << 0;
/// memory must be told of, which it always is;
const MEMORY_INFO: u32 = 1 << 1;
/// a video mode must be set, which can't be done;
const VIDEO_MODE: u32 = 1 << 2;
/// the header says where the kernel goes, and not the ELF header.
const ADDRESSES: u32 = 1 << 16;
/// A loader that does not know one of these must refuse the kernel (3.1.2).
const REQUIRED: u32 = 0xffff;

/// What can be wrong with a multiboot kernel.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// There is none.
    #[error("no multiboot header (1badb002) in its first {SEARCHED} bytes")]
    Missing,
    /// There is one, of the other version.
    #[error("a multiboot 2 kernel: only version 1 of Multiboot is known")]
    Version2,
    /// The sum of magic number, flags and checksum is not 0.
    #[error("multiboot header at byte {offset:#x}: magic number, flags and checksum make {sum:#x}, and must make 0")]
    Checksum {
        /// Where the header is in the file.
        offset: usize,
        /// The sum.
        sum: u32,
    },
    /// The file ends, or the searched range, before the header does.
    #[error("multiboot header at byte {offset:#x}: its address fields are cut off")]
    Truncated {
        /// Where the header is in the file.
        offset: usize,
    },
    /// It asks for something that is not known.
    #[error("multiboot header: flags {flags:#x} ask for something that is not offered: bits {unknown:#x}{}", video(*.unknown))]
    Flags {
        /// All of its flags.
        flags: u32,
        /// Those that are at fault.
        unknown: u32,
    },
    /// Address fields that contradict each other or the file.
    #[error("multiboot header: {what}: header {header:#x}, load {load:#x}..{load_end:#x}, bss end {bss_end:#x}", header = .addresses.header,
        load = .addresses.load, load_end = .addresses.load_end, bss_end = .addresses.bss_end)]
    Addresses {
        /// What is wrong with them.
        what: &'static str,
        /// The fields.
        addresses: Addresses,
    },
}

fn video(unknown: u32) -> &'static str {
    if unknown & VIDEO_MODE == 0 { "" } else { " (a video mode: there is no display)" }
}

/// A header that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::loader) struct Header {
    /// Where it is in the file.
    pub(super) offset: usize,
    /// Where the kernel goes; `None`: where its ELF header says.
    pub(super) addresses: Option<Addresses>,
}

/// The address fields of a header (3.1.3), physical addresses all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where the header itself goes: that ties the file to memory.
    pub header: u32,
    /// Where what is loaded begins.
    pub load: u32,
    /// Where it ends; 0: with the file.
    pub load_end: u32,
    /// Where the zeroed memory behind it ends; 0: there is none.
    pub bss_end: u32,
    /// The entry point.
    pub entry: u32,
}

/// What a search for a header has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::loader) enum Search {
    /// A magic number with its checksum, at this offset in the file.
    Found(usize),
    /// Only a magic number.
    BadChecksum {
        offset: usize,
        sum: u32,
    },
    Nothing,
}

/// Looks for a header.
pub(in crate::loader) fn search(image: &[u8]) -> Search {
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

/// Reads the header, and refuses what it asks for in vain.
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
