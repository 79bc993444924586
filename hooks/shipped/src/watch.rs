//! `watch`: reports accesses to chosen pages, and lets them through.
//!
//! The pages are closed to user mode (or to everybody, or to writes) in the guest's own page tables, so that each access faults.
//! Moves and arithmetic of 64-bit code on 1 to 8 bytes inside of a page are then done here, and the instruction is skipped: the
//! page stays closed, and every access is seen. For any other instruction the page is opened; it is closed again at the next fault
//! of another instruction, and what was done meanwhile is not seen. Openings are counted.
//!
//! An access to a frame that is not guest memory is not emulable, whatever the instruction. The page is opened for it, and the
//! guest's access takes its course. The report says how many there were.
//!
//! # What is missed
//! - what happens behind an opening, until the next fault of any address of the address space
//! - with `catch = "user"`, reads by the guest's kernel
//! - accesses between the moment when the guest's kernel maps a page anew without a fault in user mode at that page (a system
//!   call, `mprotect`, `fork`) and the next fault in that address space
//! - accesses through another address at which the same frame is mapped, DMA, and the kernel's own map of all memory
//! - pages that are part of a larger one (2 MiB, 1 GiB): the report says so if there were any
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
use crate::sighting::{Kind, Sighting, Sightings};

pub(crate) const RANGES: OptionDoc = OptionDoc {
    name: "ranges",
    value: "[{ start, end }]",
    default: None,
    help: "the pages: virtual addresses, end itself outside of them; at most 256 pages",
};
pub(crate) const SPACE: OptionDoc = OptionDoc {
    name: "space",
    value: "\"any\" | \"first\"",
    default: Some("\"any\""),
    help: "every address space, or the one in which a page is met first",
};
pub(crate) const CATCH: OptionDoc = OptionDoc {
    name: "catch",
    value: "\"user\" | \"all\"",
    default: Some("\"user\""),
    help: "user mode's accesses; or the kernel's too, for kernels that do not look at their page-table entries",
};
pub(crate) const SHOW: OptionDoc = OptionDoc {
    name: "show",
    value: "0..10000",
    default: Some("20"),
    help: "how many of the first accesses are shown at the end, one by one; the others are counted",
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
            help: "what is reported; where it is writes alone, reads cost nothing",
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
    const fn includes(self, kind: Kind) -> bool {
        match self {
            Self::Both => true,
            Self::Read => !matches!(kind, Kind::Write),
            Self::Write => matches!(kind, Kind::Write | Kind::ReadWrite),
        }
    }
}

struct Watch {
    wanted: Wanted,
    fence: Fence,
    sightings: Sightings,
    cpus: PerVcpu<Cpu>,
}

/// What one vCPU has.
struct Cpu {
    pages: Box<[Counts]>,
    /// The instruction that a page was opened for last.
    opened_for: AtomicU64,
    /// The access that was reported before the guest's own handler ran, and is to come again: see [`retry_of`].
    reported: AtomicU64,
    /// Accesses to frames that are not the guest's memory.
    outside_memory: Counter,
}

#[derive(Default)]
struct Counts {
    reads: Counter,
    writes: Counter,
    fetches: Counter,
    openings: Counter,
}

/// No instruction is there.
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
                "{outside} accesses were not emulable, since their frames are not guest memory: they were let through"
            ));
        }
        Report { tables, warnings }
    }
}

impl Watch {
    /// An access that would not have faulted without this hook.
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

    /// Does what the instruction would have done to its closed page, if that is possible exactly.
    fn carry_out(&self, fault: &Fault, guest: &mut dyn Guest, leaf: &Leaf) -> Option<Effect> {
        // Where the kernel accesses a page of user mode's, SMAP has a say, of which the page tables tell nothing.
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

    /// The guest's own handler is about to map the page, or to do whatever else it does: the access is reported now, since it need
    /// not come again, and the page is closed when the handler is through.
    fn leave_to_the_guest(&self, fault: &Fault, guest: &mut dyn Guest, index: usize) -> Result<()> {
        self.fence.meet(fault.cr3);
        self.report(fault, guest, None, index);
        if set_tripwire(fault, guest, self.fence.held())? {
            self.cpus.of(fault).reported.store(retry_of(fault), Relaxed);
        }
        Ok(())
    }

    /// Closes what is open, but for what the instruction at work needs open.
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
            Some(effect) => Kind::of_effect(effect),
            None => Kind::of(fault.error_code, guest.instruction().ok().as_ref()),
        };
        if self.is_again(fault) || !self.fence.concerns(fault.cr3) || !self.wanted.includes(kind) {
            return;
        }
        let counts = &cpu.pages[index];
        match kind {
            Kind::Read => counts.reads.add(1),
            Kind::Write => counts.writes.add(1),
            Kind::ReadWrite => {
                counts.reads.add(1);
                counts.writes.add(1);
            }
            Kind::Fetch => counts.fetches.add(1),
        }
        self.sightings.add(guest, |guest| Sighting::new(fault, kind, effect, guest));
    }

    /// Whether this access was reported already. The guest's scheduler may have moved it to another vCPU meanwhile.
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

/// What an access has in common with its next try: instruction and address space.
fn retry_of(fault: &Fault) -> u64 {
    (fault.rip.0 ^ fault.cr3.root().0.rotate_left(32)) & !NOWHERE
}

#[cfg(test)]
mod tests;
