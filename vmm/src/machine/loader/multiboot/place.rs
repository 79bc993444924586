//! Places a multiboot kernel where its header says, or else where its ELF header says.

use vector14_hook::Pa;

use super::header::{self, Addresses, Header, HeaderError};
use crate::machine::loader::elf;
use crate::machine::loader::error::LoadReason;
use crate::machine::loader::space::Space;
use crate::machine::loader::unused::StubRoom;

/// A multiboot kernel in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::machine::loader) struct Placed {
    /// The entry point.
    pub(in crate::machine::loader) eip: Pa,
    /// End of the kernel, where modules follow.
    pub(in crate::machine::loader) end: u64,
    /// Room for stubs, according to the kernel's file.
    pub(in crate::machine::loader) room: StubRoom,
}

/// Loads a kernel into memory.
pub(in crate::machine::loader) fn place(image: &[u8], space: &mut Space<'_>) -> Result<Placed, LoadReason> {
    let header = header::read(image)?;
    match header.addresses {
        Some(addresses) => place_flat(image, &header, addresses, space),
        None => place_elf(image, space),
    }
}

fn place_elf(image: &[u8], space: &mut Space<'_>) -> Result<Placed, LoadReason> {
    let file = elf::parse(image, elf::Width::Any)?;
    let extent = elf::place_segments(&file, space)?;
    let room = StubRoom::of(&file, &extent);
    Ok(Placed { eip: elf::virtual_entry(&file, &extent)?, end: extent.end, room })
}

/// Places a file of any format whose header has addresses: the "a.out kludge" of 3.1.3.
fn place_flat(
    image: &[u8],
    header: &Header,
    addresses: Addresses,
    space: &mut Space<'_>,
) -> Result<Placed, LoadReason> {
    let refuse = |what| LoadReason::Multiboot(HeaderError::Addresses { what, addresses });
    let usize_of = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let before = addresses.header.checked_sub(addresses.load).ok_or(refuse("the header lies below what is loaded"))?;
    let start = header.offset.checked_sub(usize_of(before)).ok_or(refuse("what is loaded begins before the file"))?;
    let data = if addresses.load_end == 0 {
        &image[start..]
    } else {
        let size =
            addresses.load_end.checked_sub(addresses.load).ok_or(refuse("what is loaded ends before it begins"))?;
        image[start..].get(..usize_of(size)).ok_or(refuse("what is loaded ends beyond the file"))?
    };
    let load = u64::from(addresses.load);
    let load_end = load + data.len() as u64;
    let end = if addresses.bss_end == 0 { load_end } else { u64::from(addresses.bss_end) };
    if end < load_end {
        return Err(refuse("the zeroed memory ends before what is loaded"));
    }
    let eip = u64::from(addresses.entry);
    if !(load..load_end).contains(&eip) {
        return Err(LoadReason::Entry(eip));
    }
    space.claim(load..end, "another one")?;
    space.memory().write(Pa(load), data)?;
    Ok(Placed { eip: Pa(eip), end, room: StubRoom::default() })
}
