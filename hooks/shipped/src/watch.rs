//! `watch`: reports accesses to chosen pages, and lets them through.
//!
//! The pages are closed to user mode (or to all code, or to writes) in the guest's own page tables, so that each access
//! faults. Move and arithmetic instructions of 64-bit code, on 1 to 8 bytes inside one page, are then emulated and
//! skipped: the page stays closed, and every access is seen. For any other instruction the page is opened. It is closed
//! again at the next fault of another instruction; accesses in between are not seen. The report counts openings.
//!
//! An access to a frame outside guest memory can't be emulated. The page is opened for it, and the guest performs the
//! access. The report says how many there were.
//!
//! # What is missed
//! - accesses after an opening, until the next fault at any address in the address space
//! - with `catch = "user"`, reads by the guest's kernel
//! - accesses after the guest's kernel maps a page anew without a user-mode fault on that page (a system call,
//!   `mprotect`, `fork`), until the next fault in that address space
//! - accesses through another virtual address of the same frame, DMA, and accesses through the kernel's direct map
//! - pages that are part of a larger page (2 MiB, 1 GiB): the report says so if there were any
//!
//! `watch/tests.rs` has an example of each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Deserialize;
use vector14_hook::{
    Counter, ErrorCode, Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Report, Result, Table,
    Va, Verdict,
};

use crate::address::Number;
use crate::emulate::{Effect, emulate};
use crate::rights::{Catch, Fence, Leaf, PageRange, Right, Space, is_over, set_tripwire, spring_tripwire};
use crate::sighting::{AccessKind, Sighting, Sightings};

pub(crate) const RANGES: OptionDoc = OptionDoc {
    name: "ranges",
    value: "[{ start, end }]",
    default: None,
    help: "virtual addresses of the pages, end exclusive; at most 256 pages",
};
pub(crate) const SPACE: OptionDoc = OptionDoc {
    name: "space",
    value: "\"any\" | \"first\"",
    default: Some("\"any\""),
    help: "every address space, or only the first one in which one of the pages is found",
};
pub(crate) const CATCH: OptionDoc = OptionDoc {
    name: "catch",
    value: "\"user\" | \"all\"",
    default: Some("\"user\""),
    help: "accesses by user mode, or also by the kernel, for kernels that do not look at their page-table entries",
};
pub(crate) const SHOW: OptionDoc = OptionDoc {
    name: "show",
    value: "0..10000",
    default: Some("20"),
    help: "number of first accesses listed at the end; later ones are only counted",
};

pub(crate) const TYPE: HookType = HookType {
    name: "watch",
    summary: "reports reads and writes of chosen pages, with instruction and value, and lets them through",
    options: &[
        RANGES,
        OptionDoc {
            name: "access",
            value: "\"read\" | \"write\" | \"both\"",
            default: Some("\"both\""),
            help: "the accesses to report; with \"write\", reads cost nothing",
        },
        SPACE,
        CATCH,
        SHOW,
    ],
    check: |options| Watch::new(options).map(drop),
    create: |options| Ok(Box::new(Watch::new(options)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    ranges: Vec<PageRange>,
    #[serde(default)]
    access: Wanted,
    #[serde(default)]
    space: Space,
    #[serde(default)]
    catch: Catch,
    show: Option<Number>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Read,
    Write,
    #[default]
    Both,
}

impl Wanted {
    const fn includes(self, kind: AccessKind) -> bool {
        match self {
            Self::Both => true,
            Self::Read => !matches!(kind, AccessKind::Write),
            Self::Write => matches!(kind, AccessKind::Write | AccessKind::ReadWrite),
        }
    }
}

struct Watch {
    wanted: Wanted,
    fence: Fence,
    sightings: Sightings,
    cpus: PerVcpu<Cpu>,
}

/// The state of one vCPU.
struct Cpu {
    pages: Box<[Counts]>,
    /// The instruction for which a page was last opened.
    opened_for: AtomicU64,
    /// An access that was reported before the guest's own handler ran, and that will be retried: see [`retry_of`].
    reported: AtomicU64,
    /// Number of accesses to frames outside guest memory.
    outside_memory: Counter,
}

#[derive(Default)]
struct Counts {
    reads: Counter,
    writes: Counter,
    fetches: Counter,
    openings: Counter,
}

/// A value that is not the address of any instruction.
const NOWHERE: u64 = 1 << 63;

impl Watch {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { ranges, access, space, catch, show } = options.parse()?;
        let right = if matches!(access, Wanted::Write) { Right::Write } else { catch.right() };
        let fence = Fence::new(ranges, space, right)?;
        let sightings = Sightings::new(show)?;
        let cpus = PerVcpu::new(|_| Cpu {
            pages: fence.pages().map(|_| Counts::default()).collect(),
            opened_for: AtomicU64::new(NOWHERE),
            reported: AtomicU64::new(NOWHERE),
            outside_memory: Counter::default(),
        });
        Ok(Self { wanted: access, fence, sightings, cpus })
    }
}

impl Hook for Watch {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        if spring_tripwire(fault, guest, self.fence.held()) {
            self.fence.close(fault, guest)?;
            return Ok(Verdict::Resolve);
        }
        let watched = self.fence.index(fault.address);
        if let Some(index) = watched {
            let leaf = Leaf::at(guest, self.fence.held(), fault.address.page());
            if let Some(leaf) = leaf.filter(|leaf| leaf.lacks(self.fence.right()) && leaf.allows(fault.error_code)) {
                return Ok(self.let_through(fault, guest, &leaf, index));
            }
        }
        if is_over(guest, self.fence.held(), fault.address, fault.error_code) {
            return Ok(Verdict::Resolve);
        }
        if self.fence.concerns(fault.cr3) {
            self.close(fault, guest)?;
            if let Some(index) = watched {
                self.leave_to_the_guest(fault, guest, index)?;
            }
        }
        Ok(Verdict::Pass)
    }

    fn on_end(&self, guest: &mut dyn Guest) -> Report {
        let mut warnings = self.fence.warnings();
        self.fence.held().give_back(guest);
        let tables = vec![self.page_table(), self.sightings.table("the first accesses")];
        let outside: u64 = self.cpus.iter().map(|cpu| cpu.outside_memory.get()).sum();
        if outside > 0 {
            warnings.push(format!(
                "{outside} accesses were not emulable, because their frames are not guest memory: they were let through"
            ));
        }
        Report { tables, warnings }
    }
}

impl Watch {
    /// Handles an access that would not have faulted without this hook.
    fn let_through(&self, fault: &Fault, guest: &mut dyn Guest, leaf: &Leaf, index: usize) -> Verdict {
        if let Some(effect) = self.carry_out(fault, guest, leaf) {
            self.report(fault, guest, Some(&effect), index);
            return Verdict::Skip;
        }
        self.report(fault, guest, None, index);
        let cpu = self.cpus.of(fault);
        cpu.pages[index].openings.add(1);
        cpu.opened_for.store(fault.rip.0, Relaxed);
        leaf.exchange(guest, self.fence.held(), &[], &[self.fence.right()]);
        Verdict::Resolve
    }

    /// Emulates the instruction on its closed page, if that can be done exactly.
    fn carry_out(&self, fault: &Fault, guest: &mut dyn Guest, leaf: &Leaf) -> Option<Effect> {
        // If the kernel accesses a user page, SMAP also decides, and the page tables do not show that.
        let own = leaf.guests_access().contains(vector14_hook::Access::USER) == fault.from_user();
        if !own || fault.error_code.contains(ErrorCode::FETCH) {
            return None;
        }
        let instruction = guest.instruction().ok()?;
        let Ok(effect) = emulate(&instruction, fault.address, leaf.place(fault.address), guest) else {
            self.cpus.of(fault).outside_memory.add(1);
            return None;
        };
        if let Some(effect) = &effect {
            leaf.note_access(guest, self.fence.held(), effect.written.is_some());
        }
        effect
    }

    /// Handles a fault of the guest's own, which its handler will resolve or not. The access is reported now, because
    /// it may not fault again, and the page is closed when the handler has finished.
    fn leave_to_the_guest(&self, fault: &Fault, guest: &mut dyn Guest, index: usize) -> Result<()> {
        self.fence.meet(fault.cr3);
        self.report(fault, guest, None, index);
        if set_tripwire(fault, guest, self.fence.held())? {
            self.cpus.of(fault).reported.store(retry_of(fault), Relaxed);
        }
        Ok(())
    }

    /// Closes all open pages, except those that the current instruction needs.
    fn close(&self, fault: &Fault, guest: &mut dyn Guest) -> Result<()> {
        let opened_for = &self.cpus.of(fault).opened_for;
        if opened_for.load(Relaxed) != fault.rip.0 {
            opened_for.store(NOWHERE, Relaxed);
            self.fence.close(fault, guest)?;
        }
        Ok(())
    }

    fn report(&self, fault: &Fault, guest: &dyn Guest, effect: Option<&Effect>, index: usize) {
        let cpu = self.cpus.of(fault);
        let kind = match effect {
            Some(effect) => AccessKind::of_effect(effect),
            None => AccessKind::of(fault.error_code, guest.instruction().ok().as_ref()),
        };
        if self.is_again(fault) || !self.fence.concerns(fault.cr3) || !self.wanted.includes(kind) {
            return;
        }
        let counts = &cpu.pages[index];
        match kind {
            AccessKind::Read => counts.reads.add(1),
            AccessKind::Write => counts.writes.add(1),
            AccessKind::ReadWrite => {
                counts.reads.add(1);
                counts.writes.add(1);
            }
            AccessKind::Fetch => counts.fetches.add(1),
        }
        self.sightings.add(guest, |guest| Sighting::new(fault, kind, effect, guest));
    }

    /// Whether this access was already reported. The guest's scheduler may have moved its thread to another vCPU
    /// meanwhile.
    fn is_again(&self, fault: &Fault) -> bool {
        let key = retry_of(fault);
        self.cpus.iter().any(|cpu| cpu.reported.compare_exchange(key, NOWHERE, Relaxed, Relaxed).is_ok())
    }

    fn page_table(&self) -> Table {
        let columns = ["page", "reads", "writes", "fetches", "openings"].map(str::to_owned).to_vec();
        let sum = |index: usize, count: fn(&Counts) -> &Counter| {
            self.cpus.iter().map(|cpu| count(&cpu.pages[index]).get()).sum::<u64>()
        };
        let row = |(index, page): (usize, Va)| {
            let counts = [
                sum(index, |counts| &counts.reads),
                sum(index, |counts| &counts.writes),
                sum(index, |counts| &counts.fetches),
                sum(index, |counts| &counts.openings),
            ];
            let touched = counts.iter().any(|count| *count > 0);
            touched.then(|| std::iter::once(page.to_string()).chain(counts.map(|count| count.to_string())).collect())
        };
        let rows = self.fence.pages().enumerate().filter_map(row).collect();
        Table { title: "accesses by page".to_owned(), columns, rows }
    }
}

/// Identifies an access and its retry: instruction and address space.
fn retry_of(fault: &Fault) -> u64 {
    (fault.rip.0 ^ fault.cr3.root().0.rotate_left(32)) & !NOWHERE
}

#[cfg(test)]
mod tests;
