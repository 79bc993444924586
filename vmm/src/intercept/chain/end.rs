//! Ends hooks. Each hook ends on a thread of its own, within its timeout, so that one that does not return delays
//! nobody any longer than that.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use vector14_hook::Report;
use vector14_hook::paging::Paging;
use vector14_hook::panics::{describe_panic, guarded};

use super::entry::ChainHook;
use super::inside::Call;
use super::leaving::Ended;
use super::summary::{HookSummary, Until, bounded};
use super::{Chain, Outcome};
use crate::intercept::guest::{Context, FaultedGuest};
use crate::machine::memory::Memory;
use crate::sys::lock;

/// The guest as a hook sees it while the hook is ended: without a fault.
#[derive(Clone)]
pub struct GuestAtRest {
    memory: Arc<Memory>,
    paging: Paging,
    start: Instant,
}

impl GuestAtRest {
    /// The guest in `memory`, started at `start`; `paging` translates its virtual addresses.
    #[must_use]
    pub fn new(memory: Arc<Memory>, paging: Paging, start: Instant) -> Self {
        Self { memory, paging, start }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn handle(&self) -> FaultedGuest<'_> {
        FaultedGuest::new(&self.memory, &Context { paging: self.paging, ..Context::default() }, self.start)
    }
}

impl Chain {
    /// Ends every hook and collects its summary: first the hooks that were taken out, then those of the chain. Called
    /// after the vCPUs have stopped; a vCPU that has not stopped is in a hook that can't be ended. The hooks'
    /// timeouts limit how long this takes.
    pub fn finish(&self, guest: &GuestAtRest) -> Outcome {
        let entries = self.close();
        let Ended { last, earlier } = self.settle_all(guest);
        let mut hooks = Vec::from(last);
        hooks.extend(entries.into_iter().map(|entry| self.end_or_give_up(entry, Until::End, guest)));
        Outcome { hooks, earlier, notes: std::mem::take(&mut *lock(&self.notes)).into_sentences() }
    }

    /// Ends a hook, unless a vCPU is stuck in it.
    pub(super) fn end_or_give_up(&self, entry: Arc<ChainHook>, until: Until, guest: &GuestAtRest) -> HookSummary {
        match self.calls().into_iter().find(|call| call.entry == entry.id) {
            Some(call) => self.give_up(entry, until, &call),
            None => self.end(entry, until, guest),
        }
    }

    /// Ends a hook: collects its report, and drops the hook if nobody else holds it.
    pub(super) fn end(&self, entry: Arc<ChainHook>, until: Until, guest: &GuestAtRest) -> HookSummary {
        // A vCPU that is stuck in another hook still has this one in its list, and may leave that other hook after
        // all.
        entry.retire();
        let (name, timeout) = (entry.name.clone(), entry.trust.timeout);
        let overruns = lock(&entry.overruns).describe(&entry.name, entry.trust.budget);
        let summary = entry.summarise(until, None);
        let (sender, ended) = channel();
        let guest = guest.clone();
        let end = move || {
            let report = guarded(|| {
                let mut guest = guest.handle();
                guest.enter_hook_at_end(entry.owner);
                let report = entry.hook.on_end(&mut guest);
                drop(entry);
                report
            });
            // Fails only if nobody waits any more.
            let _ = sender.send(report.map_err(|payload| describe_panic(payload.as_ref())));
        };
        let spawned = std::thread::Builder::new().name("hook's end".to_owned()).spawn(end);
        let (report, note) = match spawned.map(|_| ended.recv_timeout(timeout)) {
            Ok(Ok(Ok(report))) => (Some(report), None),
            Ok(Ok(Err(panic))) => {
                (Some(Report::default()), Some(format!("hook `{name}` panicked at its end: {panic}")))
            }
            Ok(Err(_)) => {
                let late = format!("hook `{name}` has not ended within its timeout of {timeout:?}");
                (None, Some(format!("{late}: it has not reported, and what it had to write may be lost")))
            }
            Err(error) => (None, Some(format!("hook `{name}` was not ended: no thread for it: {error}"))),
        };
        note.into_iter().for_each(|note| self.note(note));
        overruns.into_iter().for_each(|note| lock(&self.notes).add(note));
        HookSummary { ended: report.is_some(), report: bounded(report.unwrap_or_default()), ..summary }
    }

    /// Gives up a hook that a vCPU does not leave. The hook is never dropped, because it may still return.
    fn give_up(&self, entry: Arc<ChainHook>, until: Until, call: &Call) -> HookSummary {
        self.note(format!("hook `{}` was not ended, and has not reported: it is still busy with {call}", entry.name));
        lock(&entry.overruns)
            .describe(&entry.name, entry.trust.budget)
            .into_iter()
            .for_each(|note| lock(&self.notes).add(note));
        let summary = entry.summarise(until, None);
        std::mem::forget(entry);
        summary
    }
}
