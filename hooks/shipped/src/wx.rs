//! `wx`: reports pages that are executed after they were written.
//!
//! If the guest lets user mode write and execute a page, `wx` allows only one of the two at a time, in the guest's own
//! page tables. A write faults and makes the page writable and not executable; a fetch faults and makes it executable
//! and not writable. A fetch from a page that was written since it was last executed is reported.
//!
//! # What is seen, and what is missed
//! Pages are found when user mode, or the kernel on its behalf, takes a write fault on them. Their mapping is checked
//! when user code resumes, before its next instruction. If a page is written first and made executable later
//! (`mprotect` from RW to RX), the change itself does not fault. So the last 32 pages that were written are checked
//! again at each of the next 64 faults; a page that is executed before the next of these faults is missed. Writes
//! through another mapping of the same frame, and writes by devices, are missed too. If an instruction writes to its
//! own page, the page is opened for both, until the next fault.
//!
//! # Cost
//! The first write to a page costs a second fault and a flush, which stops every vCPU briefly; so does each switch
//! between write and execute. `start` and `end` limit this to the addresses that matter.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use vector14_hook::paging::EFER_NXE;
use vector14_hook::{
    Access, Cr3, ErrorCode, Fault, Guest, GuestError, Hook, HookType, OptionDoc, Options, OptionsError, Report, Result,
    Table, Va, Verdict,
};

use crate::address::{AddressRange, Number};
use crate::rights::{Held, Leaf, Right, is_over, set_tripwire, spring_tripwire};
use crate::sighting::{Sighting, Sightings};
use crate::watch::SHOW;

pub(crate) const TYPE: HookType = HookType {
    name: "wx",
    summary: "reports user-mode pages that are executed after they were written",
    options: &[
        OptionDoc { name: "start", value: "address", default: Some("0"), help: "first address to check" },
        OptionDoc {
            name: "end",
            value: "address",
            default: Some("0x100000000000000"),
            help: "end of the addresses to check (exclusive)",
        },
        SHOW,
    ],
    check: |options| Wx::new(options).map(drop),
    create: |options| Ok(Box::new(Wx::new(options)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "lowest")]
    start: Number,
    #[serde(default = "highest")]
    end: Number,
    show: Option<Number>,
}

const fn lowest() -> Number {
    Number(0)
}

const fn highest() -> Number {
    Number(1 << 56)
}

/// Number of recently written pages whose mapping is checked.
const LOOKED_AT: usize = 32;
/// Number of faults at which a written page is checked.
const LOOKS: u32 = 64;
/// Maximum number of pages in the report.
const MOST_PAGES: usize = 4096;

struct Wx {
    range: AddressRange,
    held: Held,
    sightings: Sightings,
    /// Shared by all vCPUs, because the guest's scheduler may move a process to another vCPU before it resumes.
    written: Mutex<VecDeque<Written>>,
    unlisted: AtomicU64,
    /// By address space and page. Locked only when a right is removed, which also costs a flush.
    pages: Mutex<HashMap<(Cr3, Va), Page>>,
}

/// A page that was written, as far as `wx` knows.
#[derive(Clone, Copy)]
struct Written {
    cr3: Cr3,
    page: Va,
    looks: u32,
}

/// The recorded state of a page.
#[derive(Default)]
struct Page {
    /// The last instruction that faulted at a write to the page.
    writer: Va,
    executed: u64,
    /// The first instruction executed in the page after a write.
    entry: Va,
}

impl Wx {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { start, end, show } = options.parse()?;
        let range =
            AddressRange::of_pages(start, end).map_err(|error| OptionsError::new(error.key(), error.to_string()))?;
        Ok(Self {
            range,
            held: Held::default(),
            sightings: Sightings::new(show)?,
            written: Mutex::default(),
            unlisted: AtomicU64::new(0),
            pages: Mutex::default(),
        })
    }
}

impl Hook for Wx {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        if spring_tripwire(fault, guest, &self.held) {
            self.look(fault, guest)?;
            return Ok(Verdict::Resolve);
        }
        if !self.range.contains(fault.address) {
            self.look(fault, guest)?;
            return Ok(if is_over(guest, &self.held, fault.address, fault.error_code) {
                Verdict::Resolve
            } else {
                Verdict::Pass
            });
        }
        let leaf = Leaf::at(guest, &self.held, fault.address.page()).filter(|leaf| leaf.allows(fault.error_code));
        match leaf {
            Some(leaf) if fault.error_code.contains(ErrorCode::FETCH) && leaf.lacks(Right::Execute) => {
                self.executed(fault, guest, &leaf)
            }
            Some(leaf) if fault.error_code.contains(ErrorCode::WRITE) && leaf.lacks(Right::Write) => {
                self.written(fault, guest, &leaf)
            }
            Some(_) | None if is_over(guest, &self.held, fault.address, fault.error_code) => Ok(Verdict::Resolve),
            Some(_) | None => self.leave_to_the_guest(fault, guest),
        }
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        let mut report = Report { tables: vec![self.table()], warnings: self.held.warnings() };
        self.held.give_back(guest);
        report.tables.push(self.sightings.table("the first of these fetches"));
        let unlisted = self.unlisted.load(Relaxed);
        if unlisted > 0 {
            report.warnings.push(format!("{unlisted} writes were not checked: there were too many at a time"));
        }
        report
    }
}

impl Wx {
    /// Handles a fetch from a page that is currently writable.
    fn executed(&self, fault: &Fault, guest: &mut dyn Guest, leaf: &Leaf) -> Result {
        let page = fault.address.page();
        if leaf.is_dirty() {
            self.update(fault.cr3, page, |page| {
                page.executed += 1;
                if page.executed == 1 {
                    page.entry = fault.rip;
                }
            });
            self.sightings.add(guest, |guest| Sighting::of(fault, guest));
        }
        leaf.exchange(guest, &self.held, &[Right::Write], &[Right::Execute]);
        guest.flush()?;
        Ok(Verdict::Resolve)
    }

    /// Handles a write to a page that is currently executable.
    fn written(&self, fault: &Fault, guest: &mut dyn Guest, leaf: &Leaf) -> Result {
        let page = fault.address.page();
        self.update(fault.cr3, page, |page| page.writer = fault.rip);
        if fault.rip.page() == page {
            // The instruction needs both rights to make progress.
            leaf.exchange(guest, &self.held, &[], &[Right::Write]);
            self.look_later(fault, page);
        } else {
            leaf.exchange(guest, &self.held, &[Right::Execute], &[Right::Write]);
            guest.flush()?;
        }
        Ok(Verdict::Resolve)
    }

    /// Handles a fault of the guest's own, which its handler will resolve or not.
    fn leave_to_the_guest(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        self.look(fault, guest)?;
        if fault.error_code.contains(ErrorCode::WRITE) {
            let page = fault.address.page();
            self.update(fault.cr3, page, |page| page.writer = fault.rip);
            self.look_later(fault, page);
            set_tripwire(fault, guest, &self.held)?;
        }
        Ok(Verdict::Pass)
    }

    fn look_later(&self, fault: &Fault, page: Va) {
        let mut written = lock(&self.written);
        if written.len() == LOOKED_AT && written.pop_front().is_some_and(|before| before.looks == 0) {
            self.unlisted.fetch_add(1, Relaxed);
        }
        written.push_back(Written { cr3: fault.cr3, page, looks: 0 });
    }

    /// Checks the mappings of pages that were written, and removes the right to execute them.
    fn look(&self, fault: &Fault, guest: &mut dyn Guest) -> std::result::Result<(), GuestError> {
        let mut taken = false;
        let mut written = lock(&self.written);
        for _ in 0..written.len() {
            let Some(mut one) = written.pop_front() else { break };
            one.looks += 1;
            let leaf = if one.cr3.root() == fault.cr3.root() { Leaf::at(guest, &self.held, one.page) } else { None };
            match leaf {
                Some(leaf) if leaf.guests_access().contains(Access::EXECUTE | Access::USER) => {
                    taken |= self.keep_from_executing(guest, &leaf);
                }
                Some(_) | None if one.looks < LOOKS => written.push_back(one),
                Some(_) | None => {}
            }
        }
        drop(written);
        if taken { guest.flush() } else { Ok(()) }
    }

    fn keep_from_executing(&self, guest: &mut dyn Guest, leaf: &Leaf) -> bool {
        // If NXE is clear, the right to execute can't be removed.
        let can = guest.system_registers().efer & EFER_NXE != 0;
        can && !leaf.lacks_any() && leaf.exchange(guest, &self.held, &[Right::Execute], &[])
    }

    fn update(&self, cr3: Cr3, page: Va, change: impl FnOnce(&mut Page)) {
        let mut pages = lock(&self.pages);
        let room = pages.len() < MOST_PAGES;
        let key = (Cr3(cr3.root().0 & !0x1000), page);
        match pages.get_mut(&key) {
            Some(known) => change(known),
            None if room => change(pages.entry(key).or_default()),
            None => {}
        }
    }

    fn table(&self) -> Table {
        let pages = lock(&self.pages);
        let mut executed: Vec<_> = pages.iter().filter(|(_, page)| page.executed > 0).collect();
        executed.sort_by_key(|((cr3, page), _)| (page.0, cr3.0));
        let rows = executed.into_iter().map(|((cr3, address), page)| {
            let times = page.executed.to_string();
            vec![address.to_string(), cr3.to_string(), times, page.writer.to_string(), page.entry.to_string()]
        });
        let columns = ["page", "cr3", "times", "last written by", "first executed at"].map(str::to_owned).to_vec();
        Table { title: "pages executed after a write".to_owned(), columns, rows: rows.collect() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
