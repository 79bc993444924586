//! Calls of a hook that took longer than its budget.

use std::time::Duration;

use super::inside::Call;
use crate::intercept::counts::milliseconds;

/// Calls of one hook that exceeded its budget.
#[derive(Debug, Default)]
pub(super) struct Overruns {
    pub(super) count: u64,
    longest: Option<(Duration, Call)>,
}

impl Overruns {
    /// Records that `call` has lasted `lasted`; `again` if it was over the budget before. Returns true for the hook's
    /// first such call.
    pub(super) fn add(&mut self, call: &Call, lasted: Duration, again: bool) -> bool {
        self.count += u64::from(!again);
        if self.longest.is_none_or(|(longest, _)| lasted > longest) {
            self.longest = Some((lasted, *call));
        }
        self.count == 1 && !again
    }

    /// Describes the calls in one sentence, if there were any.
    pub(super) fn describe(&self, hook: &str, budget: Duration) -> Option<String> {
        let (lasted, call) = self.longest?;
        let calls = if self.count == 1 { "1 call".to_owned() } else { format!("{} calls", self.count) };
        let lasted = Duration::from_millis(milliseconds(lasted));
        Some(format!(
            "hook `{hook}` took longer than its budget of {budget:?} in {calls}; the longest took {lasted:?} or more, for {call}"
        ))
    }
}
