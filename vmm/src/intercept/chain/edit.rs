//! Changing the chain while the guest runs.
//!
//! A change builds a new list of hooks and publishes it; each vCPU takes it over on its next pass through the run
//! loop. A fault is handled with the old list or with the new one, never with neither. A hook that was taken out is
//! ended when no vCPU holds a list that contains it.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::entry::ChainHook;
use super::entry::HookStatus;
use super::leaving::{Ended, Retired};
use super::summary::Until;
use super::{Chain, GuestAtRest, Links, NamedHook};
use crate::intercept::config::HookConfig;
use crate::machine::memory::Owner;
use crate::sys::lock;

/// How long the end of a VM waits for a hook that another thread is ending.
const GRACE: Duration = Duration::from_secs(5);

/// Why a chain was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no hook of this name.
    #[error("no hook `{name}` in the chain ({known})")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Names of the hooks in the chain.
        known: String,
    },
    /// The VM has ended, and its hooks with it.
    #[error("the VM has ended")]
    Ended,
    /// The position is beyond the end of the chain.
    #[error("position {position}: the chain has {hooks} hooks, so it must be from 0 to {hooks}")]
    Position {
        /// The position.
        position: usize,
        /// Number of hooks in the chain.
        hooks: usize,
    },
    /// The hook was not made from options.
    #[error("hook `{name}` was not made from options that could be changed")]
    NotFromConfig {
        /// Its name.
        name: String,
    },
    /// The new order does not name every hook once.
    #[error("the new order must name every hook once: {known}")]
    Order {
        /// Names of the hooks in the chain.
        known: String,
    },
}

impl Chain {
    /// Adds a hook to the chain, at `position` or at its end, and returns its name in the chain.
    ///
    /// # Errors
    /// [`EditError::Position`].
    pub fn add(&self, hook: NamedHook, position: Option<usize>) -> Result<String, EditError> {
        self.publish(|entries| {
            let (hooks, position) = (entries.len(), position.unwrap_or(entries.len()));
            if position > hooks {
                return Err(EditError::Position { position, hooks });
            }
            let entry = self.entry(hook, entries, self.new_owner());
            let name = entry.name.clone();
            entries.insert(position, entry);
            Ok((name, None))
        })
    }

    /// Removes a hook. [`Chain::settle`] ends it.
    ///
    /// # Errors
    /// [`EditError::Unknown`].
    pub fn remove(&self, name: &str) -> Result<(), EditError> {
        self.publish(|entries| {
            let entry = entries.remove(find(entries, name)?);
            Ok(((), Some(Retired { entry, until: Until::Removed })))
        })
    }

    /// Replaces a hook with another, under the old one's name; the new one inherits the old one's pages of the pool.
    ///
    /// # Errors
    /// [`EditError::Unknown`].
    pub fn replace(&self, name: &str, mut hook: NamedHook) -> Result<(), EditError> {
        self.publish(|entries| {
            let index = find(entries, name)?;
            name.clone_into(&mut hook.name);
            let new = Arc::new(ChainHook::new(hook, self.new_id(), entries[index].owner));
            let entry = std::mem::replace(&mut entries[index], new);
            Ok(((), Some(Retired { entry, until: Until::Replaced })))
        })
    }

    /// Reorders the hooks; `names` must list each of them once.
    ///
    /// # Errors
    /// [`EditError::Unknown`], [`EditError::Order`].
    pub fn reorder(&self, names: &[String]) -> Result<(), EditError> {
        self.publish(|entries| {
            let order: Vec<_> = names.iter().map(|name| find(entries, name)).collect::<Result<_, _>>()?;
            let mut each = order.clone();
            each.sort_unstable();
            if !each.into_iter().eq(0..entries.len()) {
                return Err(EditError::Order { known: known(entries) });
            }
            *entries = order.into_iter().map(|index| Arc::clone(&entries[index])).collect();
            Ok(((), None))
        })
    }

    /// Snapshot of the hooks, in chain order.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookStatus> {
        lock(&self.current).0.iter().map(|entry| entry.status()).collect()
    }

    /// Checks that there is a hook of this name.
    ///
    /// # Errors
    /// [`EditError::Unknown`].
    pub fn find_name(&self, name: &str) -> Result<(), EditError> {
        find(&lock(&self.current).0, name).map(drop)
    }

    /// The config that the hook of this name was made from.
    ///
    /// # Errors
    /// [`EditError::Unknown`]; [`EditError::NotFromConfig`].
    pub fn origin(&self, name: &str) -> Result<HookConfig, EditError> {
        let current = lock(&self.current);
        let entry = &current.0[find(&current.0, name)?];
        entry.origin().cloned().ok_or_else(|| EditError::NotFromConfig { name: name.to_owned() })
    }

    /// Ends the hooks that were taken out and that no vCPU is in any more; they clean up in `guest`. Returns how many
    /// have not ended yet.
    pub fn settle(&self, guest: &GuestAtRest) -> usize {
        let mut leaving = lock(&self.leaving);
        // The list of retired hooks holds one reference; each vCPU's list holds another.
        let (idle, busy): (Vec<_>, _) =
            std::mem::take(&mut leaving.retired).into_iter().partition(|one| Arc::strong_count(&one.entry) == 1);
        leaving.retired = busy;
        leaving.ending += idle.len();
        drop(leaving);
        // Makes what the last vCPU did in a hook visible from here on; the reference count alone does not.
        fence(Ordering::Acquire);
        for Retired { entry, until } in idle {
            let owner = entry.owner;
            let summary = self.end(entry, until, guest);
            if until == Until::Removed && summary.ended {
                self.withdraw(&summary.name, owner, guest);
            }
            let mut leaving = lock(&self.leaving);
            leaving.ended.add(summary);
            leaving.ending -= 1;
            self.left.notify_all();
        }
        let leaving = lock(&self.leaving);
        leaving.retired.len() + leaving.ending
    }

    /// Closes the chain, and takes out the hooks in force.
    pub(super) fn close(&self) -> Vec<Arc<ChainHook>> {
        let mut current = lock(&self.current);
        self.closed.store(true, Ordering::Relaxed);
        let links = std::mem::replace(&mut *current, Arc::new(Links(Vec::new())));
        Arc::try_unwrap(links).map_or_else(|shared| shared.0.clone(), |links| links.0)
    }

    /// Ends the hooks that were taken out, including those that another thread is about to end. Called after the
    /// chain is closed and the vCPUs have stopped.
    pub(super) fn settle_all(&self, guest: &GuestAtRest) -> Ended {
        self.settle(guest);
        let waited = self.left.wait_timeout_while(lock(&self.leaving), GRACE, |leaving| leaving.ending > 0);
        let (mut leaving, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            self.note(format!("{} hooks that were taken out did not end within {GRACE:?}", leaving.ending));
        }
        let (mut ended, retired) = (std::mem::take(&mut leaving.ended), std::mem::take(&mut leaving.retired));
        drop(leaving);
        for Retired { entry, until } in retired {
            // A vCPU that is stuck in one hook holds references to every hook of its list.
            ended.add(self.end_or_give_up(entry, until, guest));
        }
        ended
    }

    fn withdraw(&self, name: &str, owner: Owner, guest: &GuestAtRest) {
        if let Err(error) = guest.memory().withdraw(owner) {
            self.note(format!("pages of hook `{name}` could not be taken back from the guest: {error}"));
        }
    }

    /// Publishes a changed list.
    fn publish<R>(
        &self,
        change: impl FnOnce(&mut Vec<Arc<ChainHook>>) -> Result<(R, Option<Retired>), EditError>,
    ) -> Result<R, EditError> {
        let mut current = lock(&self.current);
        if self.closed.load(Ordering::Relaxed) {
            return Err(EditError::Ended);
        }
        let mut entries = current.0.clone();
        let (result, gone) = change(&mut entries)?;
        lock(&self.leaving).retired.extend(gone);
        *current = Arc::new(Links(entries));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(result)
    }

    pub(super) fn new_owner(&self) -> Owner {
        Owner::hook(self.owners.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates an entry under a name that none of `others` has.
    pub(super) fn entry(&self, mut hook: NamedHook, others: &[Arc<ChainHook>], owner: Owner) -> Arc<ChainHook> {
        hook.name = unique(hook.name, |name| others.iter().any(|other| other.name == name));
        Arc::new(ChainHook::new(hook, self.new_id(), owner))
    }
}

/// Returns `name`, or `name#2` and so on if it is taken.
pub(crate) fn unique(name: String, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}#{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
    free.unwrap_or(name)
}

fn find(entries: &[Arc<ChainHook>], name: &str) -> Result<usize, EditError> {
    let unknown = || EditError::Unknown { name: name.to_owned(), known: known(entries) };
    entries.iter().position(|entry| entry.name == name).ok_or_else(unknown)
}

fn known(entries: &[Arc<ChainHook>]) -> String {
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if names.is_empty() { "it is empty".to_owned() } else { names.join(", ") }
}
