//! Changes of page tables that are in use: by this vCPU, by others, and by the CPU's own page walker.

use super::entry::{NO_EXECUTE, NO_STRUCT_PAGE, USER, WRITE};
use super::{Access, EntryFlags, Mapping, Paging, Part, Place, Step, TableEntry, Translation};
use crate::{GuestError, GuestKind, PAGE_SIZE, Pa, Va};

/// So often is a change of an entry tried that others change at the same time.
const TRIES: u32 = 1000;

/// Memory in which page tables are.
pub trait Tables {
    /// Reads the 8 bytes at a multiple of 8.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn load(&self, word: Pa) -> Result<u64, GuestError>;

    /// Replaces 8 bytes that still are `current`. `Ok(false)`: they are others by now.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn replace(&self, word: Pa, current: u64, new: u64) -> Result<bool, GuestError>;

    /// Takes a zeroed page for a table.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`].
    fn allocate_table(&self) -> Result<Pa, GuestError>;

    /// Gives a page back that was taken for a table and not used.
    fn free_table(&self, table: Pa);
}

impl Paging {
    /// Maps the page at `page` to `frame` in the tables of a guest of this kind, and returns where the leaf's entry is.
    ///
    /// # Errors
    /// As [`Guest::map`](crate::Guest::map).
    pub fn map(
        &self,
        tables: &impl Tables,
        kind: GuestKind,
        page: Va,
        frame: Pa,
        access: Access,
    ) -> Result<Place, GuestError> {
        for address in [page.0, frame.0] {
            if address % PAGE_SIZE != 0 {
                return Err(GuestError::Unaligned(address));
            }
        }
        let leaf = self.leaf_entry(frame, access)? | if kind == GuestKind::Linux { NO_STRUCT_PAGE } else { 0 };
        // Each round either fills the entry where the walk ended or finds that somebody else was at work there.
        for _ in 0..TRIES {
            let absent = match self.descend(page, |slot| tables.load(slot), |_| ())? {
                Step::Leaf(_) => return Err(GuestError::AlreadyMapped(page)),
                Step::Reserved(_) => return Err(GuestError::Malformed(page)),
                Step::Absent(absent) => absent,
            };
            if absent.level == 1 {
                if self.replace(tables, absent, leaf)? {
                    return Ok(self.mode.place(absent.slot));
                }
            } else if kind == GuestKind::Linux {
                return Err(GuestError::NoTable(page));
            } else {
                let table = tables.allocate_table()?;
                let entry = self.table_entry(table, absent.level, page);
                let replaced = entry.and_then(|entry| self.replace(tables, absent, entry));
                if replaced != Ok(true) {
                    tables.free_table(table);
                    replaced?;
                }
            }
        }
        Err(GuestError::Contended(page))
    }

    /// Makes the leaf that maps `page` absent.
    ///
    /// # Errors
    /// As [`Guest::unmap`](crate::Guest::unmap).
    pub fn unmap(&self, tables: &impl Tables, page: Va) -> Result<Mapping, GuestError> {
        self.change(tables, page, |_| 0)
    }

    /// Gives the leaf that maps `page` the rights `access`.
    ///
    /// # Errors
    /// As [`Guest::protect`](crate::Guest::protect).
    pub fn protect(&self, tables: &impl Tables, page: Va, access: Access) -> Result<Mapping, GuestError> {
        let rights = self.leaf_entry(Pa(0), access)?;
        self.change(tables, page, |entry| (entry & !(WRITE | USER | NO_EXECUTE)) | rights)
    }

    /// Replaces the leaf that maps `page` by what `change` makes of it. The CPU sets A and D at any time, other vCPUs may do
    /// anything: it is tried anew where somebody came between, but not for ever.
    fn change(&self, tables: &impl Tables, page: Va, change: impl Fn(u64) -> u64) -> Result<Mapping, GuestError> {
        for _ in 0..TRIES {
            let mut leaf = TableEntry::default();
            let Translation { address, page_size, access } =
                match self.descend(page, |slot| tables.load(slot), |entry| leaf = entry)? {
                    Step::Leaf(translation) => translation,
                    Step::Absent(_) => return Err(GuestError::NotMapped(page)),
                    Step::Reserved(_) => return Err(GuestError::Malformed(page)),
                };
            if self.replace(tables, leaf, change(leaf.entry))? {
                let frame = Pa(address.0 & !(page_size - 1));
                let dirty = leaf.flags().contains(EntryFlags::DIRTY);
                return Ok(Mapping { frame, page_size, access, dirty, slot: leaf.slot, entry: leaf.entry });
            }
        }
        Err(GuestError::Contended(page))
    }

    /// Replaces an entry that still is what it was. `Ok(false)`: it, or what shares its word, is another by now.
    fn replace(&self, tables: &impl Tables, seen: TableEntry, new: u64) -> Result<bool, GuestError> {
        let Place { word, part } = self.mode.place(seen.slot);
        let beside = match part {
            Part::Whole => 0,
            Part::Low | Part::High => tables.load(word)?,
        };
        tables.replace(word, part.replace(beside, seen.entry), part.replace(beside, new))
    }
}
