//! The result of a run: why it stopped, and the ledger of its faults. `run --summary` serialises it as is.

use serde::Serialize;

pub use crate::intercept::chain::{HookSummary, HookTotals, Until};
pub use crate::intercept::counts::{Exits, Faults, Verdicts};
pub use crate::machine::stop::Stop;

/// Everything that is known of a VM after it has ended.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// Why it ended.
    #[cfg_attr(test, schemars(with = "crate::machine::stop::StopJson"))]
    pub stop: Stop,
    /// The engine that was in force: `exception-bitmap`, `gate` or `off`.
    pub engine: &'static str,
    /// Milliseconds from the first entry of the guest until its faults were intercepted; `None` if they never were.
    pub armed_ms: Option<u64>,
    /// Milliseconds from the first entry to the end.
    pub wall_ms: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Faults seen, by kind.
    pub faults: Faults,
    /// Verdicts on the faults, by kind. The five counts add up to `faults.total`.
    pub verdicts: Verdicts,
    /// Returns from KVM_RUN, by cause.
    pub exits: Exits,
    /// The hooks: first the last 16 that were taken out, in the order in which they ended, then those of the chain,
    /// in its order.
    pub hooks: Vec<HookSummary>,
    /// Totals of the hooks that were taken out before those 16.
    pub earlier_hooks: HookTotals,
    /// Events that deserve a sentence: loops, hooks left out, a guest that could not be armed.
    pub notes: Vec<String>,
}
