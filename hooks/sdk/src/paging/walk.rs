//! Page walks: what they read, and how they end.

use super::entry::{Link, NoLink};
use super::flags::{Access, EntryFlags};
use super::mode::{Mode, Paging};
use crate::address::FRAME;
use crate::{GuestError, PAGE_SIZE, Pa, Va};

const MOST_LEVELS: usize = 5;

/// The translation of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address.
    pub address: Pa,
    /// Size of the leaf page that maps it, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging.
    pub page_size: u64,
    /// The access rights that the mapping grants.
    pub access: Access,
}

/// A leaf mapping, as it was before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte of the frame.
    pub frame: Pa,
    /// Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging.
    pub page_size: u64,
    /// The access rights that all levels together granted.
    pub access: Access,
    /// Whether the leaf was dirty: the CPU had written to the page.
    pub dirty: bool,
    /// Guest-physical address of the leaf's entry.
    pub slot: Pa,
    /// The entry's old value.
    pub entry: u64,
}

/// One page-table entry that a walk read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableEntry {
    /// Level of the table that holds the entry; entries of level 1 map 4 KiB.
    pub level: u8,
    /// Guest-physical address of the entry.
    pub slot: Pa,
    /// The entry's value.
    pub entry: u64,
}

impl TableEntry {
    /// The flags of this entry.
    #[must_use]
    pub const fn flags(&self) -> EntryFlags {
        EntryFlags::from_bits_truncate(self.entry)
    }

    /// The frame or next table that this entry points to.
    #[must_use]
    pub const fn frame(&self) -> Pa {
        Pa(self.entry & FRAME)
    }
}

/// A page walk: every entry that was read, and how the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    entries: [TableEntry; MOST_LEVELS],
    count: u8,
    end: Step,
}

impl Walk {
    /// A walk that was made elsewhere; only the first five entries are kept.
    pub(crate) fn new(entries: &[TableEntry], end: Step) -> Self {
        let mut walk = Self { entries: Default::default(), count: 0, end };
        for (slot, entry) in walk.entries.iter_mut().zip(entries) {
            *slot = *entry;
            walk.count += 1;
        }
        walk
    }

    /// The entries that were read, from the top-level table down.
    #[must_use]
    pub fn entries(&self) -> &[TableEntry] {
        &self.entries[..usize::from(self.count)]
    }

    /// How the walk ended.
    #[must_use]
    pub const fn end(&self) -> Step {
        self.end
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The walk reached a leaf.
    Leaf(Translation),
    /// The walk ended at an entry that is not present.
    Absent(TableEntry),
    /// The walk ended at an entry with a reserved bit set.
    Reserved(TableEntry),
}

impl Paging {
    /// Walks the tables for `address`: reads words with `load` and passes each entry to `visit`.
    pub(super) fn descend(
        &self,
        address: Va,
        load: impl Fn(Pa) -> Result<u64, GuestError>,
        mut visit: impl FnMut(TableEntry),
    ) -> Result<Step, GuestError> {
        if !self.is_canonical(address) {
            return Err(GuestError::Malformed(address));
        }
        let mut access = Access::all();
        let mut table = self.mode.root(self.cr3);
        for level in (1..=self.mode.levels()).rev() {
            let shift = self.mode.shift(level);
            let slot = self.mode.slot(table, address, shift);
            let place = self.mode.place(slot);
            let entry = place.part.of(load(place.word)?);
            let here = TableEntry { level, slot, entry };
            visit(here);
            match self.link(entry, level) {
                Ok(Link::Table { at, rights }) => {
                    access &= rights;
                    table = at;
                }
                Ok(Link::Page { at, rights }) => {
                    let page_size = 1 << shift;
                    let address = Pa(at.0 | (address.0 & (page_size - 1)));
                    return Ok(Step::Leaf(Translation { address, page_size, access: access & rights }));
                }
                Err(NoLink::Absent) => return Ok(Step::Absent(here)),
                Err(NoLink::Reserved) => return Ok(Step::Reserved(here)),
            }
        }
        match self.mode {
            Mode::Off => Ok(Step::Leaf(Translation { address: Pa(address.0), page_size: PAGE_SIZE, access })),
            Mode::Bits32 { .. } | Mode::Pae | Mode::Long { .. } => Err(GuestError::Malformed(address)),
        }
    }

    /// Walks the tables for `address`. `load` reads 8 bytes at a multiple of 8.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical, or what `load` returns for a table outside
    /// memory. An entry that is absent or has a reserved bit set is not an error: see [`Step`].
    pub fn walk(&self, address: Va, load: impl Fn(Pa) -> Result<u64, GuestError>) -> Result<Walk, GuestError> {
        let (mut entries, mut count) = ([TableEntry::default(); MOST_LEVELS], 0);
        let end = self.descend(address, load, |entry| {
            entries[usize::from(count)] = entry;
            count += 1;
        })?;
        Ok(Walk { entries, count, end })
    }

    /// Translates `address`.
    ///
    /// # Errors
    /// As [`Paging::walk`], [`GuestError::NotMapped`] for an entry that is not present, and [`GuestError::Malformed`] for one
    /// with a reserved bit.
    pub fn translate(
        &self,
        address: Va,
        load: impl Fn(Pa) -> Result<u64, GuestError>,
    ) -> Result<Translation, GuestError> {
        match self.descend(address, load, |_| ())? {
            Step::Leaf(translation) => Ok(translation),
            Step::Absent(_) => Err(GuestError::NotMapped(address)),
            Step::Reserved(_) => Err(GuestError::Malformed(address)),
        }
    }
}
