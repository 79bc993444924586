//! Detects hooks that take longer than they may, on the main thread, and ends a VM whose hook does not return.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use crate::intercept::chain::{Hang, StallDetector};
use crate::machine::stop::Stop;
use crate::sys::backtrace::{NoBacktrace, capture, symbolise};
use crate::vm::events::subscribe;
use crate::vm::run::Shared;

/// Number of polls per budget.
const LOOKS: u32 = 4;
/// Shortest interval between polls, for short budgets.
const QUICK: Duration = Duration::from_millis(1);
/// Longest interval between polls, for long budgets.
const SLOW: Duration = Duration::from_millis(25);

/// Polls how long vCPUs have been in hooks.
pub(crate) struct Watchdog {
    timer: TimerFd,
    interval: Duration,
    watch: StallDetector,
    vm: Arc<Shared>,
}

impl Watchdog {
    pub(crate) fn new(vm: Arc<Shared>) -> Result<Self, vmm_sys_util::errno::Error> {
        let mut timer = TimerFd::new()?;
        timer.reset(SLOW, Some(SLOW))?;
        Ok(Self { timer, interval: SLOW, watch: StallDetector::default(), vm })
    }
}

impl MutEventSubscriber for Watchdog {
    fn init(&mut self, ops: &mut EventOps) {
        subscribe(ops, &self.timer);
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.timer.wait();
        let interval = self.vm.chain.shortest_limit().map_or(SLOW, |limit| (limit / LOOKS).clamp(QUICK, SLOW));
        if interval != self.interval && self.timer.reset(interval, Some(interval)).is_ok() {
            self.interval = interval;
        }
        let hangs = self.watch.look(&self.vm.chain, Instant::now());
        // Captures all stacks before it looks up names, which takes a while.
        let stacks: Vec<_> = hangs.iter().map(|hang| self.capture(hang)).collect();
        for Hang { hook, timeout, call } in &hangs {
            let detail = format!("has not returned within its timeout of {timeout:?}; it is busy with {call}");
            self.vm.vcpus.stop(Stop::Hook { hook: hook.clone(), detail });
        }
        for (hang, stack) in hangs.iter().zip(stacks) {
            self.vm.chain.note(describe(hang, stack));
        }
    }
}

impl Watchdog {
    fn capture(&self, hang: &Hang) -> Result<Vec<usize>, NoBacktrace> {
        let cpu = self.vm.vcpus.cpus().get(hang.call.vcpu as usize).ok_or(NoBacktrace::NoThread)?;
        capture(&cpu.kicker)
    }
}

/// Where the hook is, in one line: readers of notes expect single lines.
fn describe(Hang { hook, timeout, call }: &Hang, stack: Result<Vec<usize>, NoBacktrace>) -> String {
    let place = match stack {
        Ok(frames) => {
            let lines = symbolise(&frames, |function| function.starts_with("vector14::intercept::chain"));
            format!("it was in {}", lines.join(", called by "))
        }
        Err(error) => format!("its location is unknown: {error}"),
    };
    format!("hook `{hook}` has not returned within its timeout of {timeout:?} from {call}; {place}")
}
