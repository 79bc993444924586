//! How long vCPUs stay in hooks, measured by polling where they are.
//!
//! A call that two polls see has lasted at least as long as the time between them. Nothing is measured on the path of
//! a fault, and no hook is blamed for more than was seen.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Chain;
use super::entry::ChainHook;
use super::inside::Call;
use crate::sys::lock;

/// Longest time between two polls that counts. A longer gap means that everything stood still: the host was
/// suspended, or in a debugger.
const STEP_MAX: Duration = Duration::from_millis(100);

/// What the polls have seen of all vCPUs.
#[derive(Default)]
pub(crate) struct StallDetector {
    seen: Vec<Seen>,
    /// Time of the last poll.
    at: Option<Instant>,
    /// Total time watched up to the last poll.
    time: Duration,
}

/// A call that was in progress at the last poll.
struct Seen {
    call: Call,
    /// Weak, so that a hook that was taken out can be ended.
    entry: Weak<ChainHook>,
    since: Duration,
    is_over: bool,
}

/// A call that does not return.
#[derive(Clone, Debug)]
pub(crate) struct Hang {
    pub(crate) hook: String,
    pub(crate) timeout: Duration,
    pub(crate) call: Call,
}

impl StallDetector {
    /// Polls where the vCPUs are. Counts the calls that exceed their budgets, and returns those that hang.
    pub(crate) fn look(&mut self, chain: &Chain, now: Instant) -> Vec<Hang> {
        let step = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at).min(STEP_MAX));
        self.time += step;
        self.at = Some(now);
        let (seen, now) = (std::mem::take(&mut self.seen), self.time);
        self.seen = chain
            .calls()
            .into_iter()
            .filter_map(|call| {
                let before = seen.iter().find(|seen| seen.call == call);
                let (since, is_over) = before.map_or((now, false), |seen| (seen.since, seen.is_over));
                let entry = before.map_or_else(|| chain.find(call), |seen| Some(Weak::clone(&seen.entry)));
                Some(Seen { call, entry: entry?, since, is_over })
            })
            .collect();
        self.seen.iter_mut().filter_map(|seen| seen.judge(now)).collect()
    }
}

impl Seen {
    fn judge(&mut self, now: Duration) -> Option<Hang> {
        let entry = self.entry.upgrade()?;
        let lasted = now.saturating_sub(self.since);
        if lasted >= entry.trust.budget {
            let first = lock(&entry.overruns).add(&self.call, lasted, self.is_over);
            if first {
                tracing::warn!(
                    "hook `{}` is over its budget of {:?} for {}",
                    entry.name,
                    entry.trust.budget,
                    self.call
                );
            }
            self.is_over = true;
        }
        let timeout = entry.trust.timeout;
        (lasted >= timeout).then(|| Hang { hook: entry.name.clone(), timeout, call: self.call })
    }
}

impl Chain {
    /// The calls that vCPUs are in now.
    pub(super) fn calls(&self) -> Vec<Call> {
        (0..).zip(self.inside.iter()).filter_map(|(vcpu, inside)| inside.look(vcpu)).collect()
    }

    /// The hook that `call` belongs to, in the chain or already taken out.
    pub(super) fn find(&self, call: Call) -> Option<Weak<ChainHook>> {
        let links = Arc::clone(&lock(&self.current));
        let current = links.0.iter().find(|entry| entry.id == call.entry).map(Arc::downgrade);
        current.or_else(|| lock(&self.leaving).find(call.entry))
    }

    /// The shortest budget or timeout of any hook, which sets how often to poll; `None` if there is no hook.
    pub(crate) fn shortest_limit(&self) -> Option<Duration> {
        let links = Arc::clone(&lock(&self.current));
        links.0.iter().map(|entry| entry.trust.budget.min(entry.trust.timeout)).min()
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::mock::write_fault;
    use vector14_hook::{Fault, Guest, Hook, Result, Verdict};

    use super::*;
    use crate::intercept::chain::{NamedHook, Trust};

    struct Passes;

    impl Hook for Passes {
        fn on_fault(&self, _: &Fault, _: &mut dyn Guest) -> Result {
            Ok(Verdict::Pass)
        }
    }

    /// A vCPU's way through the hook, and what is seen of it at times in milliseconds.
    struct Stage {
        chain: Chain,
        watch: StallDetector,
        start: Instant,
    }

    impl Stage {
        fn new() -> Self {
            let (budget, timeout) = (Duration::from_millis(100), Duration::from_millis(1000));
            let hook = NamedHook::new("h", Passes).trusted(Trust { budget, timeout, ..Trust::DEFAULT });
            Self { chain: Chain::new(vec![hook]), watch: StallDetector::default(), start: Instant::now() }
        }

        fn enter(&self, sequence: u64) {
            let fault = Fault { sequence, ..write_fault(0x1000) };
            self.chain.inside.at(0).begin(&fault);
            self.chain.inside.at(0).enter(self.chain.view().links.0[0].id);
        }

        fn look(&mut self, at: u64) -> usize {
            self.watch.look(&self.chain, self.start + Duration::from_millis(at)).len()
        }

        fn over_budget(&self) -> u64 {
            self.chain.hooks()[0].over_budget
        }
    }

    #[test]
    fn a_call_is_counted_once_however_often_it_is_seen() {
        let mut stage = Stage::new();
        stage.enter(1);
        for (at, count) in [(0, 0), (50, 0), (99, 0), (100, 1), (150, 1), (200, 1), (300, 1)] {
            assert_eq!((stage.look(at), stage.over_budget()), (0, count), "after {at} ms");
        }
        stage.enter(2);
        for (at, count) in [(310, 1), (400, 1), (420, 2)] {
            assert_eq!((stage.look(at), stage.over_budget()), (0, count), "after {at} ms");
        }
        let links = stage.chain.view().links;
        let told = lock(&links.0[0].overruns).describe("h", Duration::from_millis(100)).unwrap();
        assert!(told.contains("in 2 calls; the longest took 300ms or more, for fault #1"), "{told}");
    }

    #[test]
    fn calls_that_return_in_between_are_nobody_s_overrun() {
        let mut stage = Stage::new();
        for sequence in 0..100 {
            stage.enter(sequence);
            assert_eq!(stage.look(sequence * 99), 0);
            stage.chain.inside.at(0).leave();
        }
        assert_eq!(stage.over_budget(), 0);
    }

    #[test]
    fn a_call_hangs_at_its_timeout() {
        let mut stage = Stage::new();
        stage.enter(1);
        (0..1000).step_by(50).for_each(|at| assert_eq!(stage.look(at), 0, "after {at} ms"));
        assert_eq!([999, 1000].map(|at| stage.look(at)), [0, 1]);
    }

    #[test]
    fn a_host_that_was_suspended_accuses_nobody() {
        let mut stage = Stage::new();
        stage.enter(1);
        assert_eq!([0, 20, 600_000].map(|at| stage.look(at)), [0, 0, 0]);
    }
}
