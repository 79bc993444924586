//! Changes to page tables while this vCPU, other vCPUs and the CPU's page walker use them.

use super::entry::{NO_EXECUTE, NO_STRUCT_PAGE, USER, WRITE};
use super::flags::{Access, EntryFlags};
use super::mode::{Paging, Part, Place};
use super::walk::{Mapping, Step, TableEntry, Translation};
use crate::{GuestError, GuestKind, PAGE_SIZE, Pa, Va};

/// Compare-exchange attempts before giving up with `Contended`.
const TRIES: u32 = 1000;

/// The memory that holds the page tables.
pub trait Tables {
    /// Reads 8 bytes at `word`, a multiple of 8.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn load(&self, word: Pa) -> Result<u64, GuestError>;

    /// Atomically replaces the 8 bytes at `word` if they equal `current`. Returns `Ok(false)` if they do not.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn replace(&self, word: Pa, current: u64, new: u64) -> Result<bool, GuestError>;

    /// Allocates a zeroed page for a table.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`].
    fn allocate_table(&self) -> Result<Pa, GuestError>;

    /// Frees a page that was allocated for a table and not used.
    fn free_table(&self, table: Pa);
}

impl Paging {
    /// Maps the page at `page` to `frame` in the tables of a guest of this kind, and returns the place of the leaf's
    /// entry.
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
        // Each attempt either fills the entry where the walk ended, or finds that someone else changed it.
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

    /// Sets the access rights of the leaf that maps `page` to `access`.
    ///
    /// # Errors
    /// As [`Guest::protect`](crate::Guest::protect).
    pub fn protect(&self, tables: &impl Tables, page: Va, access: Access) -> Result<Mapping, GuestError> {
        let rights = self.leaf_entry(Pa(0), access)?;
        self.change(tables, page, |entry| (entry & !(WRITE | USER | NO_EXECUTE)) | rights)
    }

    /// Replaces the leaf that maps `page` with the result of `change`. Retries up to `TRIES` times if the entry changes
    /// meanwhile: the CPU may set A and D at any time, and other vCPUs may do anything.
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

    /// Replaces an entry if it is still as `seen`. Returns `Ok(false)` if the entry, or the other half of its word, has
    /// changed.
    fn replace(&self, tables: &impl Tables, seen: TableEntry, new: u64) -> Result<bool, GuestError> {
        let Place { word, part } = self.mode.place(seen.slot);
        let beside = match part {
            Part::Whole => 0,
            Part::Low | Part::High => tables.load(word)?,
        };
        tables.replace(word, part.replace(beside, seen.entry), part.replace(beside, new))
    }
}
