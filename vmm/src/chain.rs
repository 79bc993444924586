//! The hook chain: asks the hooks in order, and answers for those that misbehave.
//!
//! On the way of a fault: after decode, before apply. The hooks are shared by all vCPUs; what is counted here is each
//! vCPU's own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use vector14_hook::{Fault, Hook, Verdict};

use crate::guest::FaultedGuest;
use crate::summary::HookSummary;
use crate::sys::lock;

/// A hook and the name that it goes by.
pub type NamedHook = (String, Box<dyn Hook>);

/// The ordered hooks of a VM.
pub struct Chain {
    entries: Vec<Entry>,
    /// Sentences about hooks that misbehaved, for the summary.
    notes: Mutex<Vec<String>>,
}

struct Entry {
    name: String,
    hook: Box<dyn Hook>,
    /// Set when the hook has panicked or failed: it is not asked again.
    left_out: AtomicBool,
}

/// One vCPU's count of a hook's calls and failures.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookCount {
    calls: u64,
    faulted: u64,
}

/// What a chain decided, and which of its hooks did; `None` where all passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// Position in the chain of the hook that decided.
    pub hook: Option<usize>,
}

impl Chain {
    /// A chain that asks `hooks` in this order.
    #[must_use]
    pub fn new(hooks: Vec<NamedHook>) -> Self {
        report_panics_of_hooks_here();
        let entry = |(name, hook)| Entry { name, hook, left_out: AtomicBool::new(false) };
        Self { entries: hooks.into_iter().map(entry).collect(), notes: Mutex::default() }
    }

    /// Counts for one vCPU, all zero.
    #[must_use]
    pub fn counts(&self) -> Vec<HookCount> {
        vec![HookCount::default(); self.entries.len()]
    }

    /// Asks the hooks about `fault`. A hook that panics or fails has the fault reinjected, and is left out from then on.
    pub fn dispatch<'a>(&'a self, fault: &Fault, guest: &mut FaultedGuest<'a>, counts: &mut [HookCount]) -> Decision {
        for (index, (entry, count)) in self.entries.iter().zip(counts).enumerate() {
            if entry.left_out.load(Ordering::Relaxed) {
                continue;
            }
            guest.hook = &entry.name;
            count.calls += 1;
            let failure = match guarded(|| entry.hook.on_fault(fault, guest)) {
                Ok(Ok(Verdict::Pass)) => continue,
                Ok(Ok(verdict)) => return Decision { verdict, hook: Some(index) },
                Ok(Err(error)) => format!("failed: {error}"),
                Err(payload) => format!("panicked: {}", describe_panic(payload.as_ref())),
            };
            count.faulted += 1;
            self.leave_out(index, fault, &failure);
            return Decision { verdict: Verdict::Reinject, hook: Some(index) };
        }
        Decision { verdict: Verdict::Pass, hook: None }
    }

    /// Name of the hook at `index`, for reports.
    #[must_use]
    pub fn name(&self, index: Option<usize>) -> &str {
        index.and_then(|index| self.entries.get(index)).map_or("no hook", |entry| &entry.name)
    }

    /// Reports the hook at `index` for a verdict on `fault` that could not be carried out, and leaves it out.
    #[cold]
    pub(crate) fn reject(&self, index: Option<usize>, fault: &Fault, counts: &mut [HookCount], why: &dyn Display) {
        if let Some(index) = index {
            if let Some(count) = counts.get_mut(index) {
                count.faulted += 1;
            }
            self.leave_out(index, fault, &why.to_string());
        }
    }

    /// Adds a sentence to the summary.
    #[cold]
    pub(crate) fn note(&self, note: String) {
        tracing::warn!("{note}");
        lock(&self.notes).push(note);
    }

    #[cold]
    fn leave_out(&self, index: usize, fault: &Fault, failure: &str) {
        let Some(entry) = self.entries.get(index) else { return };
        if !entry.left_out.swap(true, Ordering::Relaxed) {
            self.note(format!(
                "hook `{}` {failure}; fault #{} at {} (rip {}) was reinjected, and the hook is left out from here on",
                entry.name, fault.sequence, fault.address, fault.rip
            ));
        }
    }

    /// Ends every hook and collects what is known of it, with all vCPUs' counts in `counts`.
    pub fn finish(&self, counts: &[Vec<HookCount>]) -> (Vec<HookSummary>, Vec<String>) {
        let summarise = |(index, entry): (usize, &Entry)| {
            let of_hook = || counts.iter().filter_map(|counts| counts.get(index));
            let report = guarded(|| entry.hook.on_end()).unwrap_or_else(|payload| {
                self.note(format!("hook `{}` panicked at its end: {}", entry.name, describe_panic(payload.as_ref())));
                vector14_hook::Report::default()
            });
            HookSummary {
                name: entry.name.clone(),
                calls: of_hook().map(|count| count.calls).sum(),
                faulted: of_hook().map(|count| count.faulted).sum(),
                report,
            }
        };
        let hooks = self.entries.iter().enumerate().map(summarise).collect();
        (hooks, std::mem::take(&mut lock(&self.notes)))
    }
}

thread_local! {
    /// Whether this thread is inside of a hook.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Where the panic that is being unwound on this thread began, `file:line`.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls into a hook; a panic does not come out.
fn guarded<R>(call: impl FnOnce() -> R) -> std::thread::Result<R> {
    IN_HOOK.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IN_HOOK.set(false);
    result
}

/// Has panics inside of hooks noted instead of printed: [`Chain::dispatch`] reports them in its own words.
fn report_panics_of_hooks_here() {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    INSTALL.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_HOOK.get() {
                PANICKED_AT.set(info.location().map(ToString::to_string));
            } else {
                others(info);
            }
        }));
    });
}

fn describe_panic(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = PANICKED_AT.take().map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}", text.unwrap_or("without a message"))
}
