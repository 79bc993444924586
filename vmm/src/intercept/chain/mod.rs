//! The hook chain: asks the hooks in order, and supplies the verdict for hooks that misbehave.
//!
//! On the path of a fault, it stands between decode and apply. All vCPUs share the hooks; counts are per vCPU.
//! `entry` is a hook in its chain, `edit` changes the chain while the guest runs, `trust` says how far a hook may go.
//! `notes` holds messages about hooks that misbehaved. vCPUs publish in `inside` which hook they are in; `stall`
//! finds out from that how long they stay there.

mod edit;
mod end;
mod entry;
mod inside;
mod leaving;
mod notes;
mod overruns;
mod stall;
mod summary;

use std::fmt::Display;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use vector14_hook::panics::{describe_panic, guarded, report_panics_of_hooks_here};
use vector14_hook::{Fault, PerVcpu, Verdict};

pub use self::edit::EditError;
pub(crate) use self::edit::unique;
pub use self::end::GuestAtRest;
use self::entry::ChainHook;
pub use self::entry::{HookStatus, NamedHook};
use self::inside::{HookId, Inside};
use self::leaving::Leaving;
use self::notes::Notes;
pub(crate) use self::stall::{Hang, StallDetector};
#[cfg(test)]
pub(crate) use self::summary::ReportJson;
pub use self::summary::{HookSummary, HookTotals, Until};
use crate::intercept::guest::FaultedGuest;
pub use crate::intercept::trust::{OnError, Trust};
use crate::sys::lock;

/// The ordered hooks of a VM.
pub struct Chain {
    /// The hooks in force.
    current: Mutex<Arc<Links>>,
    /// Incremented with each change of `current`.
    generation: AtomicU64,
    /// Set when the VM has ended, with `current` locked: the chain no longer changes.
    closed: AtomicBool,
    /// Hooks that were taken out.
    leaving: Mutex<Leaving>,
    /// Signalled when a hook that was taken out has ended.
    left: Condvar,
    owners: AtomicU32,
    ids: AtomicU64,
    /// Which hook each vCPU is in.
    inside: PerVcpu<Inside>,
    /// Messages about hooks that misbehaved, for the summary.
    notes: Mutex<Notes>,
}

/// What is known of a chain's hooks after their end.
pub struct Outcome {
    /// The hooks that were taken out last, then those of the chain.
    pub hooks: Vec<HookSummary>,
    /// Totals of the hooks that were taken out before those.
    pub earlier: HookTotals,
    /// Messages about hooks that misbehaved.
    pub notes: Vec<String>,
}

/// The hooks in order, as of one generation.
struct Links(Vec<Arc<ChainHook>>);

/// A vCPU's copy of the chain, so that a fault takes no lock.
pub struct View {
    links: Arc<Links>,
    generation: u64,
}

/// A chain's verdict, and which of its hooks decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict to apply.
    pub verdict: Verdict,
    /// Position in the chain of the hook that decided; `None` if all hooks passed.
    pub hook: Option<usize>,
}

/// Who is to blame when a verdict can't be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The hook: it can tell from the fault and the guest's memory that the verdict does not fit.
    Hook,
    /// The guest: its stack or descriptor tables are not what the verdict requires.
    Guest,
}

impl Chain {
    /// Creates a chain that asks `hooks` in this order.
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
            ids: AtomicU64::new(0),
            inside: PerVcpu::default(),
            notes: Mutex::default(),
        };
        let mut entries = Vec::with_capacity(hooks.len());
        for hook in hooks {
            entries.push(chain.entry(hook, &entries, chain.new_owner()));
        }
        *lock(&chain.current) = Arc::new(Links(entries));
        chain
    }

    /// One vCPU's copy of the current chain.
    #[must_use]
    pub fn view(&self) -> View {
        let current = lock(&self.current);
        View { links: Arc::clone(&current), generation: self.generation.load(Ordering::Acquire) }
    }

    /// Updates `view` if the chain has changed.
    #[inline]
    pub fn refresh(&self, view: &mut View) {
        if view.generation != self.generation.load(Ordering::Acquire) {
            *view = self.view();
        }
    }

    /// Asks the hooks about `fault`. After a hook panics or fails, the fault is reinjected or the VM stops, and the
    /// hook is no longer asked.
    pub fn dispatch<'a>(&self, view: &'a View, fault: &Fault, guest: &mut FaultedGuest<'a>) -> Decision {
        let inside = self.inside.of(fault);
        inside.begin(fault);
        for (index, entry) in view.links.0.iter().enumerate() {
            if !entry.is_asked() {
                continue;
            }
            guest.enter_hook(&entry.name, entry.owner);
            entry.counts().of(fault).calls.add(1);
            inside.enter(entry.id);
            let answer = guarded(|| entry.hook.on_fault(fault, guest));
            inside.leave();
            let failure = match answer {
                Ok(Ok(Verdict::Pass)) => continue,
                Ok(Ok(verdict)) => return Decision { verdict, hook: Some(index) },
                Ok(Err(error)) => format!("failed: {error}"),
                Err(payload) => format!("panicked: {}", describe_panic(payload.as_ref())),
            };
            let verdict = self.fail(entry, fault, &failure);
            guest.restore_registers();
            return Decision { verdict, hook: Some(index) };
        }
        Decision { verdict: Verdict::Pass, hook: None }
    }

    /// Reports that a verdict on `fault` can't be applied, and returns the one to apply instead: Stop if the hook
    /// that gave it asks for that. A hook that does not is reported, and left out unless the guest is to blame.
    #[cold]
    pub(crate) fn reject(
        &self,
        view: &View,
        decision: &Decision,
        fault: &Fault,
        cause: Cause,
        why: &dyn Display,
    ) -> Verdict {
        let Some(entry) = view.decider(decision) else { return Verdict::Reinject };
        let (why, inside) = (why.to_string(), self.inside.of(fault));
        inside.enter(entry.id);
        let answer = guarded(|| entry.hook.on_refused(fault, &why));
        inside.leave();
        match (answer, cause, entry.trust.on_error) {
            (Ok(Some(reason)), _, _) => Verdict::Stop(reason.into()),
            (Err(payload), _, _) => self.fail(entry, fault, &format!("panicked: {}", describe_panic(payload.as_ref()))),
            (Ok(None), Cause::Guest, OnError::Reinject) => {
                if entry.is_first_impossible() {
                    self.note(format!(
                        "hook `{}` {why}; {} was reinjected, as are later faults with the same problem, and the hook goes on",
                        entry.name,
                        about(fault)
                    ));
                }
                Verdict::Reinject
            }
            (Ok(None), Cause::Guest | Cause::Hook, _) => self.fail(entry, fault, &why),
        }
    }

    /// Counts a verdict with which the guest makes no progress, and reports the hook's first one.
    #[cold]
    pub(crate) fn report_loop(&self, view: &View, decision: &Decision, fault: &Fault, rounds: u32) {
        let Some(entry) = view.decider(decision) else { return };
        let first = entry.loops() == 0;
        entry.counts().of(fault).loops.add(1);
        if first {
            self.note(format!(
                "loop: hook `{}` resolved the fault at {} ({}), rip {}, vcpu {}, {rounds} times in a row and the guest made no \
                 progress; fault #{} was reinjected instead",
                entry.name, fault.address, fault.error_code, fault.rip, fault.vcpu, fault.sequence
            ));
        }
    }

    /// Adds a note to the summary.
    #[cold]
    pub(crate) fn note(&self, note: String) {
        tracing::warn!("{note}");
        lock(&self.notes).add(note);
    }

    #[cold]
    fn fail(&self, entry: &ChainHook, fault: &Fault, failure: &str) -> Verdict {
        entry.counts().of(fault).failures.add(1);
        let first = entry.leave_out();
        let about = about(fault);
        match entry.trust.on_error {
            OnError::Reinject if first => self.note(format!(
                "hook `{}` {failure}; {about} was reinjected, and the hook is left out from here on",
                entry.name
            )),
            OnError::Reinject => {}
            OnError::Stop => return Verdict::Stop(format!("{failure}; the fault was {about}").into()),
        }
        Verdict::Reinject
    }

    fn new_id(&self) -> HookId {
        HookId(NonZeroU64::MIN.saturating_add(self.ids.fetch_add(1, Ordering::Relaxed)))
    }
}

fn about(fault: &Fault) -> String {
    format!("fault #{} at {} (rip {})", fault.sequence, fault.address, fault.rip)
}

impl View {
    /// Name of the hook that decided, for reports.
    #[must_use]
    pub fn name(&self, decision: &Decision) -> &str {
        self.decider(decision).map_or("no hook", |entry| &entry.name)
    }

    fn decider(&self, decision: &Decision) -> Option<&ChainHook> {
        decision.hook.and_then(|index| self.links.0.get(index)).map(AsRef::as_ref)
    }
}
