//! Page-table entries: decoding and making them (SDM vol. 3A, tables 4-4 to 4-6, 4-8 to 4-11, 4-15 to 4-20).

use super::flags::{Access, EntryFlags};
use super::mode::{FRAME_32, Mode, Paging};
use crate::address::FRAME;
use crate::{GuestError, Pa, Va};

pub(super) const PRESENT: u64 = EntryFlags::PRESENT.bits();
pub(super) const WRITE: u64 = EntryFlags::WRITE.bits();
pub(super) const USER: u64 = EntryFlags::USER.bits();
pub(super) const LARGE: u64 = EntryFlags::LARGE.bits();
pub(super) const NO_EXECUTE: u64 = EntryFlags::NO_EXECUTE.bits();
/// Bit 9, which the CPU ignores. Linux sets it (`_PAGE_SPECIAL`) if a frame has no `struct page`, and then refuses
/// operations that need one, such as futexes and direct I/O.
pub const NO_STRUCT_PAGE: u64 = 1 << 9;
/// Bit 12 of a large 8-byte leaf is PAT; the address bits between it and the page size are reserved.
const PAT_LARGE: u64 = 1 << 12;
/// Bits 62 to 52 are ignored in long mode, and reserved in PAE paging.
const ABOVE_FRAME: u64 = 0x7ff0_0000_0000_0000;

/// The target of a present entry.
pub(super) enum Link {
    /// A table of the next level.
    Table { at: Pa, rights: Access },
    /// A page; `at` is its frame.
    Page { at: Pa, rights: Access },
}

/// Why an entry has no target.
pub(super) enum NoLink {
    /// P is clear.
    Absent,
    /// A reserved bit is set.
    Reserved,
}

impl Paging {
    /// Decodes `entry` of a table of this level.
    pub(super) fn link(&self, entry: u64, level: u8) -> Result<Link, NoLink> {
        if entry & PRESENT == 0 {
            return Err(NoLink::Absent);
        }
        if entry & NO_EXECUTE != 0 && !self.no_execute {
            return Err(NoLink::Reserved);
        }
        let large = entry & LARGE != 0 && level > 1;
        match self.mode {
            // Frames of 4 MiB can lie above 4 GiB: bits 20 to 13 are address bits 39 to 32, and bit 21 is reserved.
            Mode::Bits32 { large_pages } if large && large_pages => match entry & 1 << 21 {
                0 => Ok(Link::Page {
                    at: Pa((entry & 0xffc0_0000) | (entry & 0x001f_e000) << 19),
                    rights: rights(entry),
                }),
                _ => Err(NoLink::Reserved),
            },
            Mode::Bits32 { .. } => Ok(page_or_table(Pa(entry & FRAME_32), entry, level)),
            Mode::Pae if entry & ABOVE_FRAME != 0 || (level == 3 && large) => Err(NoLink::Reserved),
            // The top level of PAE paging restricts no rights.
            Mode::Pae if level == 3 => Ok(Link::Table { at: Pa(entry & FRAME), rights: Access::all() }),
            Mode::Off | Mode::Pae | Mode::Long { .. } if large => large_page(entry, level),
            Mode::Off | Mode::Pae | Mode::Long { .. } => Ok(page_or_table(Pa(entry & FRAME), entry, level)),
        }
    }

    /// A leaf entry for the 4 KiB frame at `frame`.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`] if an entry of this mode can't hold the frame's address.
    pub fn leaf_entry(&self, frame: Pa, access: Access) -> Result<u64, GuestError> {
        let execute = access.contains(Access::EXECUTE) || !self.no_execute;
        Ok(self.name(frame)?
            | PRESENT
            | if access.contains(Access::WRITE) { WRITE } else { 0 }
            | if access.contains(Access::USER) { USER } else { 0 }
            | if execute { 0 } else { NO_EXECUTE })
    }

    /// An entry, in a table of this level, that points to the table at `table` and grants every right. `page` is the
    /// page that it is made for, and is used in errors.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`] as for a leaf, and [`GuestError::Malformed`] at the top level of PAE paging, which
    /// the CPU keeps in registers and reloads only when CR3 is written (SDM vol. 3A, 4.4.1).
    pub fn table_entry(&self, table: Pa, level: u8, page: Va) -> Result<u64, GuestError> {
        match self.mode {
            Mode::Pae if level == 3 => Err(GuestError::Malformed(page)),
            Mode::Off | Mode::Bits32 { .. } | Mode::Pae | Mode::Long { .. } => {
                Ok(self.name(table)? | PRESENT | WRITE | USER)
            }
        }
    }

    fn name(&self, frame: Pa) -> Result<u64, GuestError> {
        let nameable = match self.mode {
            Mode::Bits32 { .. } => FRAME_32,
            Mode::Off | Mode::Pae | Mode::Long { .. } => FRAME,
        };
        if frame.0 & !nameable == 0 { Ok(frame.0) } else { Err(GuestError::OutsideMemory(frame)) }
    }
}

fn large_page(entry: u64, level: u8) -> Result<Link, NoLink> {
    let offset = (1u64 << (12 + 9 * u32::from(level - 1))) - 1;
    if level > 3 || entry & FRAME & offset & !PAT_LARGE != 0 {
        return Err(NoLink::Reserved);
    }
    Ok(Link::Page { at: Pa(entry & FRAME & !offset), rights: rights(entry) })
}

fn page_or_table(at: Pa, entry: u64, level: u8) -> Link {
    let rights = rights(entry);
    if level == 1 { Link::Page { at, rights } } else { Link::Table { at, rights } }
}

/// The access rights that an entry grants. Entries whose XD bit is reserved have been refused before.
fn rights(entry: u64) -> Access {
    EntryFlags::from_bits_truncate(entry).access()
}
