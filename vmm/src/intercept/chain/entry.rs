//! A hook in its chain: its name, its counts, and whether it is still asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vector14_hook::{Counter, Hook, PerVcpu, Report};

use super::inside::HookId;
use super::overruns::Overruns;
use super::summary::{HookSummary, Until};
use crate::intercept::config::HookConfig;
use crate::intercept::counts::milliseconds;
use crate::intercept::trust::Trust;
use crate::machine::memory::Owner;
use crate::sys::lock;

/// A hook and the name that it goes by.
pub struct NamedHook {
    /// Name in messages, in summaries and on the control socket.
    pub name: String,
    /// The hook.
    pub hook: Box<dyn Hook>,
    /// How far the hook is trusted.
    pub trust: Trust,
    /// The config that the hook was made from, if it can be made again.
    pub origin: Option<HookConfig>,
}

impl NamedHook {
    /// Names a hook, with [`Trust::DEFAULT`].
    pub fn new(name: impl Into<String>, hook: impl Hook + 'static) -> Self {
        Self::boxed(name, Box::new(hook))
    }

    /// Names a boxed hook, with [`Trust::DEFAULT`].
    pub fn boxed(name: impl Into<String>, hook: Box<dyn Hook>) -> Self {
        Self { name: name.into(), hook, trust: Trust::DEFAULT, origin: None }
    }

    /// Sets how far the hook is trusted.
    #[must_use]
    pub fn trusted(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }
}

/// A hook's place in a chain.
pub(super) struct ChainHook {
    pub(super) id: HookId,
    pub(super) name: String,
    pub(super) hook: Box<dyn Hook>,
    pub(super) trust: Trust,
    origin: Option<HookConfig>,
    /// Owner of the pages that the hook takes from the pool.
    pub(super) owner: Owner,
    /// Whether the hook is still asked.
    asked: AtomicBool,
    /// Whether the hook has panicked or failed.
    failed: AtomicBool,
    /// Whether the guest has made one of the hook's verdicts impossible.
    impossible: AtomicBool,
    counts: PerVcpu<HookCounts>,
    /// Calls that exceeded the budget; used only by the watchdog.
    pub(super) overruns: Mutex<Overruns>,
}

/// One vCPU's count of a hook's calls and failures.
#[derive(Debug, Default)]
pub(super) struct HookCounts {
    pub(super) calls: Counter,
    pub(super) failures: Counter,
    pub(super) loops: Counter,
}

/// Status of a hook in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HookStatus {
    /// Name in the chain.
    pub name: String,
    /// Name of its type, or path of its library; `None` if no config names the hook.
    pub kind: Option<String>,
    /// Its options.
    pub options: Map<String, Value>,
    /// Budget in milliseconds: a longer call is reported.
    pub budget_ms: u64,
    /// Timeout in milliseconds: a longer call counts as a hang.
    pub timeout_ms: u64,
    /// What happens when the hook fails: `on_error` of the config.
    pub on_error: String,
    /// Number of calls.
    pub calls: u64,
    /// Number of times it panicked, failed, or gave a verdict that could not be applied.
    pub failures: u64,
    /// Number of calls that exceeded the budget.
    pub over_budget: u64,
    /// Number of loops: it resolved faults and the guest made no progress.
    pub loops: u64,
    /// Whether the hook has failed and is no longer asked.
    pub left_out: bool,
}

impl ChainHook {
    pub(super) fn new(hook: NamedHook, id: HookId, owner: Owner) -> Self {
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

    /// Stops asking this hook, because it is about to be ended.
    pub(super) fn retire(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Stops asking this hook, because it has failed. Returns true the first time.
    pub(super) fn leave_out(&self) -> bool {
        self.retire();
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// Notes that the guest has made one of the hook's verdicts impossible. Returns true the first time.
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
            failures: self.sum(|counts| &counts.failures),
            over_budget: lock(&self.overruns).count,
            loops: self.loops(),
            left_out: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Summary of the hook at its end; `report` is `None` if the hook could not be asked for one.
    pub(super) fn summarise(&self, until: Until, report: Option<Report>) -> HookSummary {
        let HookStatus { name, calls, failures, over_budget, loops, left_out, .. } = self.status();
        let ended = report.is_some();
        HookSummary {
            name,
            number: self.id.0.get(),
            calls,
            failures,
            over_budget,
            loops,
            left_out,
            until,
            ended,
            report: report.unwrap_or_default(),
        }
    }
}
