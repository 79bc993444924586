//! A hook in its chain: its name, what is known of it, and whether it is still asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vector14_hook::{Counter, Hook, PerVcpu, Report};

use super::inside::EntryId;
use super::trust::Trust;
use super::watch::Overruns;
use crate::config::HookConfig;
use crate::memory::Owner;
use crate::summary::{HookSummary, Until, milliseconds};
use crate::sys::lock;

/// A hook and the name that it goes by.
pub struct NamedHook {
    /// What messages, summaries and the control socket call it.
    pub name: String,
    /// The hook.
    pub hook: Box<dyn Hook>,
    /// How far it is trusted.
    pub trust: Trust,
    /// What it was made from, if it can be made again.
    pub origin: Option<HookConfig>,
}

impl NamedHook {
    /// A hook under a name, trusted as far as any.
    pub fn new(name: impl Into<String>, hook: impl Hook + 'static) -> Self {
        Self::boxed(name, Box::new(hook))
    }

    /// The same, of a hook that is in a box.
    pub fn boxed(name: impl Into<String>, hook: Box<dyn Hook>) -> Self {
        Self { name: name.into(), hook, trust: Trust::DEFAULT, origin: None }
    }

    /// The same, trusted so far.
    #[must_use]
    pub fn trusted(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }
}

/// A hook's place in a chain.
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) name: String,
    pub(super) hook: Box<dyn Hook>,
    pub(super) trust: Trust,
    origin: Option<HookConfig>,
    /// Whose pages those are that it takes from the pool.
    pub(super) owner: Owner,
    /// Whether it is still to be called.
    asked: AtomicBool,
    /// Whether it has panicked or failed.
    failed: AtomicBool,
    /// Whether the guest has made one of its verdicts impossible.
    impossible: AtomicBool,
    counts: PerVcpu<HookCounts>,
    /// For the watchdog alone.
    pub(super) overruns: Mutex<Overruns>,
}

/// One vCPU's count of a hook's calls and failures.
#[derive(Debug, Default)]
pub(super) struct HookCounts {
    pub(super) calls: Counter,
    pub(super) faulted: Counter,
    pub(super) loops: Counter,
}

/// What is known of a hook that is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookStatus {
    /// Its name in the chain.
    pub name: String,
    /// The name of its type, or the path of its library; `None` for a hook that no config names.
    pub kind: Option<String>,
    /// Its options.
    pub options: Map<String, Value>,
    /// A call that takes longer is reported, in milliseconds.
    pub budget_ms: u64,
    /// A call that takes longer hangs, in milliseconds.
    pub timeout_ms: u64,
    /// What its failures come to.
    pub on_error: String,
    /// How often it was called.
    pub calls: u64,
    /// How often it panicked, failed, or gave a verdict that could not be carried out.
    pub faulted: u64,
    /// How many calls were over the budget.
    pub over_budget: u64,
    /// How often it resolved faults without any progress of the guest's.
    pub loops: u64,
    /// Whether it is not asked any more, because it has failed.
    pub left_out: bool,
}

impl Entry {
    pub(super) fn new(hook: NamedHook, id: EntryId, owner: Owner) -> Self {
        let NamedHook { name, hook, trust, origin } = hook;
        let (asked, failed, impossible) = (AtomicBool::new(true), AtomicBool::new(false), AtomicBool::new(false));
        let (counts, overruns) = (PerVcpu::default(), Mutex::default());
        Self { id, name, hook, trust, origin, owner, asked, failed, impossible, counts, overruns }
    }

    pub(super) fn counts(&self) -> &PerVcpu<HookCounts> {
        &self.counts
    }

    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Has it not asked any more: it is about to be ended.
    pub(super) fn retire(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Has it not asked any more: it has failed. True the first time.
    pub(super) fn leave_out(&self) -> bool {
        self.retire();
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// Notes that the guest has made a verdict of the hook's impossible. True the first time.
    pub(super) fn is_first_impossible(&self) -> bool {
        !self.impossible.swap(true, Ordering::Relaxed)
    }

    pub(super) fn origin(&self) -> Option<&HookConfig> {
        self.origin.as_ref()
    }

    fn sum(&self, counter: impl Fn(&HookCounts) -> &Counter) -> u64 {
        self.counts.iter().map(|counts| counter(counts).get()).sum()
    }

    pub(super) fn loops(&self) -> u64 {
        self.sum(|counts| &counts.loops)
    }

    pub(super) fn status(&self) -> HookStatus {
        HookStatus {
            name: self.name.clone(),
            kind: self.origin.as_ref().map(HookConfig::kind),
            options: self.origin.as_ref().map(|origin| origin.options.values().clone()).unwrap_or_default(),
            budget_ms: milliseconds(self.trust.budget),
            timeout_ms: milliseconds(self.trust.timeout),
            on_error: self.trust.on_error.to_string(),
            calls: self.sum(|counts| &counts.calls),
            faulted: self.sum(|counts| &counts.faulted),
            over_budget: lock(&self.overruns).count,
            loops: self.loops(),
            left_out: self.failed.load(Ordering::Relaxed),
        }
    }

    /// What is known of it at its end, with its last words; `None` where it could not be asked for any.
    pub(super) fn summarise(&self, until: Until, report: Option<Report>) -> HookSummary {
        let HookStatus { name, calls, faulted, over_budget, loops, left_out, .. } = self.status();
        let ended = report.is_some();
        HookSummary {
            name,
            number: self.id.0.get(),
            calls,
            faulted,
            over_budget,
            loops,
            left_out,
            until,
            ended,
            report: report.unwrap_or_default(),
        }
    }
}
