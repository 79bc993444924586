//! `pager`: backs an address range of the guest with a file and keeps part of it in memory.
//!
//! A page is read at its first touch and mapped with the rights given in the options. If more pages are in memory than
//! `resident` allows, a batch of pages that were not used lately is made absent. Dirty pages, as the D bits of their
//! page-table entries show, are written to the file before their frames are reused. The order of steps keeps this
//! correct while other vCPUs run: make absent, flush, read the frame, write it back, reuse it.
//!
//! # What the guest has to do
//! - The guest has page tables down to the lowest level for the range, with absent entries. (With `tables = true` the
//!   pager makes them, except in Linux guests, which could not reach them.)
//! - The guest leaves these entries alone as long as pages of the range may be mapped. A touch of `sync_at` ends that:
//!   everything is written back, and each entry is restored. The end of the hook does the same.
//! - A page is mapped in one place at a time. Address spaces that share the range see the same contents, and pages move
//!   between them. A process that has something else at these addresses gets the file's pages there.
//! - A Linux process maps the range privately and anonymously, and excludes it from huge pages and from fork (`madvise`
//!   with MADV_NOHUGEPAGE and MADV_DONTFORK). It populates one page per 2 MiB (MADV_POPULATE_WRITE) so that there are
//!   tables, and then removes all access (`mprotect` with PROT_NONE) so that the kernel does nothing there of its own
//!   accord. It touches `sync_at` before it changes or unmaps the range. System calls may be given addresses in the
//!   range, except those that pin pages, such as futexes and direct I/O. (Before it copies a page of a long `write`,
//!   Linux 6.12 touches 2 MiB of it, so `resident` should be larger than that.)
//!
//! A writable file is locked (flock) from the first fault on. If a pager replaces another one while the guest runs, its
//! first fault waits until the other has written everything back.
//!
//! # When the file fails
//! Nothing is lost silently. A page that can't be written back stays in memory, dirty, and is mapped again when it is
//! touched; the next eviction or sync retries. A fault is reinjected if its page can't be read, or if no page can be
//! evicted for it. A sync that did not write everything is reinjected too. The guest's kernel then has no mapping for
//! the address and treats the access like a failed access to a mapped file (Linux: SIGSEGV). Stopping the VM instead
//! would end every process because of one file, and would not save a page.
//!
//! # Layout
//! - `options`: the options; `store`: the file
//! - `place`: a page in memory and the entry that maps it; `resident`: the pages in memory, and the order of eviction
//! - `leave`: eviction and sync
//! - `account`: counts and failures for the report

mod account;
mod leave;
mod options;
mod place;
mod resident;
mod store;
#[cfg(test)]
mod tests;

use vector14_hook::{
    Access, ErrorCode, Fault, Guest, GuestError, GuestKind, Hook, HookType, Options, OptionsError, PAGE_SIZE, Pa,
    Report, Result, Va, Verdict,
};

use self::account::{Account, Attempt};
use self::options::{DOCS, Settings, Tables};
use self::place::{Found, Resident, find};
use self::resident::{NextFrame, ResidentSet};
use self::store::Store;
use crate::address::AddressRange;

pub(crate) const TYPE: HookType = HookType {
    name: "pager",
    summary: "backs an address range with a file and keeps part of it in memory",
    options: DOCS,
    check: |options| Settings::parse(options)?.open().map(drop),
    create: |options| Ok(Box::new(Pager::new(options)?)),
};

struct Pager {
    range: AddressRange,
    access: Access,
    tables: Tables,
    sync_at: Option<Va>,
    store: Box<dyn Store>,
    set: ResidentSet,
    account: Account,
}

/// Why there is no frame for a page.
#[derive(Debug, thiserror::Error)]
enum NoFrame {
    #[error("none of the {pages} pages in memory can be written back")]
    NothingLeaves { pages: usize },
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl Pager {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let settings = Settings::parse(options)?;
        let store = settings.store()?;
        Ok(Self::of(&settings, store))
    }

    fn of(settings: &Settings, store: Box<dyn Store>) -> Self {
        let Settings { range, budget, access, tables, sync_at, .. } = *settings;
        let set = ResidentSet::new(budget.min(range.pages()));
        Self { range, access, tables, sync_at, store, set, account: Account::default() }
    }
}

impl Hook for Pager {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        let page = fault.address.page();
        if self.sync_at == Some(page) {
            return self.sync(guest);
        }
        // A fault on a present page is for the guest to handle, for example as copy-on-write.
        if !self.range.contains(page) || fault.error_code.contains(ErrorCode::PRESENT) {
            return Ok(Verdict::Pass);
        }
        self.account.faults.of(fault).add(1);
        if let Err(error) = self.store.acquire() {
            self.account.note_failure(Attempt::Read, page, &error, guest);
            return Ok(Verdict::Reinject);
        }
        self.page_in(page, guest)
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        let left = self.put_all_out(guest).err();
        for frame in self.set.take_free() {
            // The frame is ours and no longer mapped, so freeing it can't fail.
            let freed = guest.free_page(frame);
            debug_assert!(freed.is_ok(), "{freed:?}");
        }
        self.account.report(self.range, &*self.store, &self.set, left.as_ref())
    }
}

impl Pager {
    /// Maps `page`, where nothing was mapped when the fault was raised.
    fn page_in(&self, page: Va, guest: &mut dyn Guest) -> Result {
        let mut claim = self.set.claim(self.number(page));
        let found = find(guest, page);
        match (found, self.tables) {
            // Mapped meanwhile by another vCPU, or by the guest itself.
            (Found::Page, _) => return Ok(Verdict::Resolve),
            (Found::NoTable, Tables::Made) if guest.kind() == GuestKind::Other => {}
            (Found::Absent(_), _) => {}
            (Found::NoTable, Tables::Made | Tables::OfTheGuest) | (Found::Broken, _) => {
                self.account.left_to_guest();
                return Ok(Verdict::Pass);
            }
        }
        let resident = match &mut claim.resident {
            Some(resident) => resident,
            none => match self.load(page, guest)? {
                Some(loaded) => none.insert(loaded),
                None => return Ok(Verdict::Reinject),
            },
        };
        if resident.is_mapped() {
            // Mapped in another address space, or by an entry that the guest has changed since.
            resident.unmap(guest, page)?;
            guest.flush()?;
        }
        // If another vCPU changes the entry at the same time, the next fault finds the page in memory.
        match found {
            Found::Absent(entry) => resident.map(guest, &entry, self.access)?,
            Found::NoTable | Found::Page | Found::Broken => resident.map_with_tables(guest, page, self.access)?,
        }
        Ok(Verdict::Resolve)
    }

    /// Reads `page` into a frame. Returns `None` if that fails.
    fn load(&self, page: Va, guest: &mut dyn Guest) -> Result<Option<Resident>> {
        let frame = match self.take_frame(guest) {
            Ok(frame) => frame,
            Err(NoFrame::Guest(error)) => return Err(format!("no frame for the page at {page}: {error}").into()),
            Err(full @ NoFrame::NothingLeaves { .. }) => {
                self.account.note_failure(Attempt::MakeRoom, page, &full, guest);
                return Ok(None);
            }
        };
        let mut contents = [0; 4096];
        if let Err(error) = self.store.read(self.number(page), &mut contents) {
            self.set.free(frame);
            self.account.note_failure(Attempt::Read, page, &error, guest);
            return Ok(None);
        }
        guest.write_physical(frame, &contents)?;
        self.account.loaded();
        Ok(Some(Resident::loaded(frame)))
    }

    /// Finds a frame within the budget; evicts other pages if necessary.
    fn take_frame(&self, guest: &mut dyn Guest) -> std::result::Result<Pa, NoFrame> {
        let mut stayed = 0;
        loop {
            match self.set.next_frame(guest) {
                NextFrame::Free(frame) => return Ok(frame),
                NextFrame::New => match guest.allocate_page() {
                    Ok(frame) => return Ok(frame),
                    Err(error @ GuestError::PoolExhausted { .. }) if self.set.forgo_frame() > 0 => {
                        self.account.note_failure(Attempt::GrowToBudget, self.range.start(), &error, guest);
                    }
                    Err(error) => return Err(error.into()),
                },
                NextFrame::Evict(victims) => {
                    let pages = victims.len();
                    let stay = self.put_out(victims, guest)?;
                    self.account.evicted(pages - stay);
                    // Pages that stay are at the end of the queue, so this ends once every page has been tried.
                    stayed += stay;
                    if stay == pages && stayed >= self.set.resident() {
                        return Err(NoFrame::NothingLeaves { pages: stayed });
                    }
                }
            }
        }
    }

    fn number(&self, page: Va) -> u64 {
        (page.0 - self.range.start().0) / PAGE_SIZE
    }

    fn address(&self, number: u64) -> Va {
        self.range.start().offset(number * PAGE_SIZE)
    }
}
