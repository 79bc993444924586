//! The lines of `stats`: counts, and their rates.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::intercept::counts::{Exits, Faults, Verdicts, milliseconds};
use crate::vm::{RunState, VmHandle};

/// Counts at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stats {
    /// Whether the VM runs. The line that reports its end is the last one, and has the final counts.
    pub state: RunState,
    /// Milliseconds since the VM was ready to run.
    pub run_ms: u64,
    /// Faults per second, since the previous line.
    pub faults_per_s: u64,
    /// Returns from KVM_RUN per second, since the previous line.
    pub exits_per_s: u64,
    /// Faults seen, by kind.
    pub faults: Faults,
    /// What became of the faults.
    pub verdicts: Verdicts,
    /// Returns from KVM_RUN, by cause.
    pub exits: Exits,
}

/// The counts of the previous line.
pub(super) struct Meter {
    at: Instant,
    faults: u64,
    exits: u64,
}

impl Meter {
    pub(super) fn new(vm: &VmHandle) -> Self {
        let (faults, _, exits) = vm.count();
        Self { at: Instant::now(), faults: faults.total, exits: exits.total }
    }

    pub(super) fn read(&mut self, vm: &VmHandle, state: RunState) -> Stats {
        let before = std::mem::replace(self, Self::new(vm));
        let (faults, verdicts, exits) = vm.count();
        let passed = self.at.saturating_duration_since(before.at);
        Stats {
            state,
            run_ms: milliseconds(vm.elapsed()),
            faults_per_s: per_second(self.faults.saturating_sub(before.faults), passed),
            exits_per_s: per_second(self.exits.saturating_sub(before.exits), passed),
            faults,
            verdicts,
            exits,
        }
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}
