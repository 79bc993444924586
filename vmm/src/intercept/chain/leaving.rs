//! Hooks that were taken out of the chain: those that have yet to end, and what is known of the others.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::entry::ChainHook;
use super::inside::HookId;
use super::summary::{HookSummary, HookTotals, Until};

/// The hooks that were taken out of the chain.
#[derive(Default)]
pub(super) struct Leaving {
    /// Hooks that have not ended yet.
    pub(super) retired: Vec<Retired>,
    /// Number of hooks that are ending at this moment.
    pub(super) ending: usize,
    /// What is known of the hooks that have ended.
    pub(super) ended: Ended,
}

/// What is known of hooks that ended while the guest ran: full summaries of the last ones, only totals of the others,
/// because a client can replace hooks for as long as the guest runs.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) last: VecDeque<HookSummary>,
    pub(super) earlier: HookTotals,
}

impl Ended {
    const LAST_MAX: usize = 16;

    pub(super) fn add(&mut self, hook: HookSummary) {
        self.last.push_back(hook);
        if self.last.len() > Self::LAST_MAX {
            self.last.pop_front().iter().for_each(|hook| self.earlier.add(hook));
        }
    }
}

/// A hook that has been taken out of the chain.
pub(super) struct Retired {
    pub(super) entry: Arc<ChainHook>,
    /// A hook that replaces another inherits the other's pages of the pool. The pages of a removed hook are unmapped
    /// and given back.
    pub(super) until: Until,
}

impl Leaving {
    pub(super) fn find(&self, id: HookId) -> Option<Weak<ChainHook>> {
        self.retired.iter().find(|one| one.entry.id == id).map(|one| Arc::downgrade(&one.entry))
    }
}
