//! The hook chain: asks the hooks in order, and answers for those that misbehave.
//!
//! On the way of a fault: after decode, before apply. The hooks are shared by all vCPUs; what is counted here is each
//! vCPU's own. `entry` is a hook in its place, `edit` changes the chain while the guest runs.

mod edit;
mod entry;

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use vector14_hook::guard::{describe_panic, guarded, report_panics_of_hooks_here};
use vector14_hook::{Fault, Report, Verdict};

pub use self::edit::EditError;
use self::edit::Leaving;
pub(crate) use self::edit::unique;
use self::entry::Entry;
pub use self::entry::NamedHook;
use crate::guest::FaultedGuest;
use crate::summary::HookSummary;
use crate::sys::lock;

/// The ordered hooks of a VM.
pub struct Chain {
    /// The hooks in force.
    current: Mutex<Arc<Links>>,
    /// Grows with each change of `current`.
    generation: AtomicU64,
    /// Set when the VM has ended, with `current` locked: nothing changes any more.
    closed: AtomicBool,
    /// Hooks that were taken out.
    leaving: Mutex<Leaving>,
    /// Signalled when one of them has come to its end.
    left: Condvar,
    owners: AtomicU32,
    /// Sentences about hooks that misbehaved, for the summary.
    notes: Mutex<Vec<String>>,
}

/// The hooks in order, as of one generation.
struct Links(Vec<Arc<Entry>>);

/// A vCPU's copy of the chain, so that a fault takes no lock.
pub struct View {
    links: Arc<Links>,
    generation: u64,
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
        let chain = Self {
            current: Mutex::new(Arc::new(Links(Vec::new()))),
            generation: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            leaving: Mutex::default(),
            left: Condvar::new(),
            owners: AtomicU32::new(0),
            notes: Mutex::default(),
        };
        let mut entries = Vec::with_capacity(hooks.len());
        for hook in hooks {
            entries.push(chain.entry(hook, &entries, chain.new_owner()));
        }
        *lock(&chain.current) = Arc::new(Links(entries));
        chain
    }

    /// The chain as it is now, for one vCPU.
    #[must_use]
    pub fn view(&self) -> View {
        let current = lock(&self.current);
        View { links: Arc::clone(&current), generation: self.generation.load(Ordering::Acquire) }
    }

    /// Takes a change of the chain over into `view`.
    #[inline]
    pub fn refresh(&self, view: &mut View) {
        if view.generation != self.generation.load(Ordering::Acquire) {
            *view = self.view();
        }
    }

    /// Asks the hooks about `fault`. A hook that panics or fails has the fault reinjected, and is left out from then on.
    pub fn dispatch<'a>(&self, view: &'a View, fault: &Fault, guest: &mut FaultedGuest<'a>) -> Decision {
        for (index, entry) in view.links.0.iter().enumerate() {
            if entry.is_left_out() {
                continue;
            }
            guest.enter_hook(&entry.name, entry.owner);
            entry.counts().of(fault).calls.add(1);
            let failure = match guarded(|| entry.hook.on_fault(fault, guest)) {
                Ok(Ok(Verdict::Pass)) => continue,
                Ok(Ok(verdict)) => return Decision { verdict, hook: Some(index) },
                Ok(Err(error)) => format!("failed: {error}"),
                Err(payload) => format!("panicked: {}", describe_panic(payload.as_ref())),
            };
            self.fail(entry, fault, &failure);
            guest.restore_registers();
            return Decision { verdict: Verdict::Reinject, hook: Some(index) };
        }
        Decision { verdict: Verdict::Pass, hook: None }
    }

    /// Reports the hook that gave a verdict on `fault` that could not be carried out, and leaves it out.
    #[cold]
    pub(crate) fn reject(&self, view: &View, decision: &Decision, fault: &Fault, why: &dyn Display) {
        if let Some(entry) = view.decider(decision) {
            self.fail(entry, fault, &why.to_string());
        }
    }

    /// Adds a sentence to the summary.
    #[cold]
    pub(crate) fn note(&self, note: String) {
        tracing::warn!("{note}");
        lock(&self.notes).push(note);
    }

    #[cold]
    fn fail(&self, entry: &Entry, fault: &Fault, failure: &str) {
        entry.counts().of(fault).faulted.add(1);
        if entry.leave_out() {
            self.note(format!(
                "hook `{}` {failure}; fault #{} at {} (rip {}) was reinjected, and the hook is left out from here on",
                entry.name, fault.sequence, fault.address, fault.rip
            ));
        }
    }

    fn end(&self, entry: &Entry, guest: &mut FaultedGuest<'_>) -> HookSummary {
        let report = guarded(|| {
            guest.enter_hook_at_end(entry.owner);
            entry.hook.on_end(guest)
        });
        let report = report.unwrap_or_else(|payload| {
            self.note(format!("hook `{}` panicked at its end: {}", entry.name, describe_panic(payload.as_ref())));
            Report::default()
        });
        entry.summarise(report)
    }

    /// Ends every hook and collects what is known of it: those that were taken out on the way first, then the chain. Called
    /// when the vCPUs have stopped.
    pub fn finish(&self, guest: &mut FaultedGuest<'_>) -> (Vec<HookSummary>, Vec<String>) {
        let links = self.close();
        let mut hooks = self.settle_all(guest);
        hooks.extend(links.0.iter().map(|entry| self.end(entry, guest)));
        (hooks, std::mem::take(&mut lock(&self.notes)))
    }
}

impl View {
    /// Name of the hook that decided, for reports.
    #[must_use]
    pub fn name(&self, decision: &Decision) -> &str {
        self.decider(decision).map_or("no hook", |entry| &entry.name)
    }

    fn decider(&self, decision: &Decision) -> Option<&Entry> {
        decision.hook.and_then(|index| self.links.0.get(index)).map(AsRef::as_ref)
    }
}
