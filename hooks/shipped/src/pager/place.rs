//! A page that is in memory, and the page-table entry that maps it.
//!
//! An entry is identified by its own address, not by an address space: with page-table isolation, two CR3s lead to the
//! same entry, and the entry that maps the page is the one to make absent. Its previous contents are restored.

use vector14_hook::paging::{EFER_LMA, NO_STRUCT_PAGE, Paging};
use vector14_hook::{Access, EntryFlags, Guest, GuestError, Pa, Step, TableEntry, Va};

/// A page's frame, and the entry that maps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) frame: Pa,
    /// Whether the frame is known to differ from the store. The D bit of its page-table entry counts in addition.
    pub(super) dirty: bool,
    /// The entry that maps the frame; `None` if it is not mapped.
    place: Option<LeafSlot>,
}

/// The last-level entry that maps a frame.
#[derive(Clone, Copy, Debug)]
struct LeafSlot {
    /// Its guest-physical address.
    slot: Pa,
    /// The absent entry that was there before.
    before: u64,
}

/// What the guest's page tables contain for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A mapped page.
    Page,
    /// An absent entry of the lowest level.
    Absent(TableEntry),
    /// No last-level table.
    NoTable,
    /// Broken tables, or tables of another mode than long mode, whose entries may have 4 bytes.
    Broken,
}

/// Walks the guest's page tables for `page`.
pub(super) fn find(guest: &dyn Guest, page: Va) -> Found {
    if guest.system_registers().efer & EFER_LMA == 0 {
        return Found::Broken;
    }
    match guest.walk(page).map(|walk| walk.end()) {
        Ok(Step::Leaf(_)) => Found::Page,
        Ok(Step::Absent(entry)) if entry.level == 1 => Found::Absent(entry),
        Ok(Step::Absent(_)) => Found::NoTable,
        Ok(Step::Reserved(_)) | Err(_) => Found::Broken,
    }
}

/// Compare-exchange attempts before giving up.
const TRIES: u32 = 1000;

impl Resident {
    /// A clean frame that is not mapped.
    pub(super) const fn loaded(frame: Pa) -> Self {
        Self { frame, dirty: false, place: None }
    }

    pub(super) const fn is_mapped(&self) -> bool {
        self.place.is_some()
    }

    /// Maps the frame by writing an absent entry, if that entry has not changed.
    pub(super) fn map(&mut self, guest: &mut dyn Guest, absent: &TableEntry, access: Access) -> Result<(), GuestError> {
        let paging = Paging::in_force(guest.address_space(), guest.system_registers());
        let leaf = paging.leaf_entry(self.frame, access)? | NO_STRUCT_PAGE;
        if guest.compare_exchange(absent.slot, absent.entry, leaf)? {
            self.place = Some(LeafSlot { slot: absent.slot, before: absent.entry });
        }
        Ok(())
    }

    /// Maps the frame at `page`, unless something is mapped there by now. Missing tables are created.
    pub(super) fn map_with_tables(
        &mut self,
        guest: &mut dyn Guest,
        page: Va,
        access: Access,
    ) -> Result<(), GuestError> {
        match guest.map(page, self.frame, access) {
            Ok(()) => {
                let leaf = guest.walk(page)?.entries().last().copied().unwrap_or_default();
                self.place = Some(LeafSlot { slot: leaf.slot, before: 0 });
                Ok(())
            }
            Err(GuestError::AlreadyMapped(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Restores the entry that maps the frame at `page`. Until the next flush, vCPUs may still use the frame.
    pub(super) fn unmap(&mut self, guest: &mut dyn Guest, page: Va) -> Result<(), GuestError> {
        let Some(LeafSlot { slot, before }) = self.place else { return Ok(()) };
        for _ in 0..TRIES {
            let entry = load(guest, slot)?;
            if !self.is_mapped_by(entry) {
                // The guest has put something else there, and the old entry's D bit is lost.
                (self.dirty, self.place) = (true, None);
                return Ok(());
            }
            if guest.compare_exchange(slot, entry, before)? {
                self.dirty |= flags(entry).contains(EntryFlags::DIRTY);
                self.place = None;
                return Ok(());
            }
        }
        Err(GuestError::Contended(page))
    }

    /// Whether the CPU has used the page since the last call; clears the A bit. A CPU does not set A for a translation
    /// that it already holds, so call this before a flush.
    pub(super) fn take_accessed(&self, guest: &mut dyn Guest) -> bool {
        let Some(LeafSlot { slot, .. }) = self.place else { return false };
        let Ok(entry) = load(guest, slot) else { return false };
        let was_used = self.is_mapped_by(entry) && flags(entry).contains(EntryFlags::ACCESSED);
        let unused = entry & !EntryFlags::ACCESSED.bits();
        was_used && guest.compare_exchange(slot, entry, unused).is_ok_and(|cleared| cleared)
    }

    fn is_mapped_by(&self, entry: u64) -> bool {
        flags(entry).contains(EntryFlags::PRESENT)
            && TableEntry { entry, ..TableEntry::default() }.frame() == self.frame
    }
}

fn flags(entry: u64) -> EntryFlags {
    EntryFlags::from_bits_truncate(entry)
}

/// Reads an entry. The read may not be atomic; a later [`Guest::compare_exchange`] fails if the value was torn.
fn load(guest: &dyn Guest, slot: Pa) -> Result<u64, GuestError> {
    let mut entry = [0; 8];
    guest.read_physical(slot, &mut entry)?;
    Ok(u64::from_le_bytes(entry))
}
