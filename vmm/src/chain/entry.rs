//! A hook in its chain: its name, what is known of it, and whether it is still asked.

use std::sync::atomic::{AtomicBool, Ordering};

use vector14_hook::{Counter, Hook, PerVcpu, Report};

use crate::memory::Owner;
use crate::summary::HookSummary;

/// A hook and the name that it goes by.
pub struct NamedHook {
    /// What messages, summaries and the control socket call it.
    pub name: String,
    /// The hook.
    pub hook: Box<dyn Hook>,
}

impl NamedHook {
    /// A hook under a name.
    pub fn new(name: impl Into<String>, hook: impl Hook + 'static) -> Self {
        Self { name: name.into(), hook: Box::new(hook) }
    }
}

/// A hook's place in a chain.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) hook: Box<dyn Hook>,
    /// Whose pages those are that it takes from the pool.
    pub(super) owner: Owner,
    /// Set when the hook has panicked or failed: it is not asked again.
    left_out: AtomicBool,
    counts: PerVcpu<HookCounts>,
}

/// One vCPU's count of a hook's calls and failures.
#[derive(Debug, Default)]
pub(super) struct HookCounts {
    pub(super) calls: Counter,
    pub(super) faulted: Counter,
}

impl Entry {
    pub(super) fn new(hook: NamedHook, owner: Owner) -> Self {
        let NamedHook { name, hook } = hook;
        Self { name, hook, owner, left_out: AtomicBool::new(false), counts: PerVcpu::default() }
    }

    pub(super) fn counts(&self) -> &PerVcpu<HookCounts> {
        &self.counts
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Has it not asked any more. True the first time.
    pub(super) fn leave_out(&self) -> bool {
        !self.left_out.swap(true, Ordering::Relaxed)
    }

    pub(super) fn summarise(&self, report: Report) -> HookSummary {
        HookSummary {
            name: self.name.clone(),
            calls: self.counts.iter().map(|counts| counts.calls.get()).sum(),
            faulted: self.counts.iter().map(|counts| counts.faulted.get()).sum(),
            left_out: self.is_left_out(),
            report,
        }
    }
}
