//! How far a hook is trusted: how long it may take, and what happens when it fails.

use std::fmt;
use std::time::Duration;

/// How far a hook is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// A call that takes longer than this is counted and reported.
    pub budget: Duration,
    /// A call that takes longer than this counts as a hang and ends the VM. Also limits how long a hook's end is
    /// waited for.
    pub timeout: Duration,
    /// What happens if the hook panics, fails, or gives a verdict that can't be applied.
    pub on_error: OnError,
}

impl Trust {
    /// Trust of a hook whose config does not set any.
    pub const DEFAULT: Self =
        Self { budget: Duration::from_millis(100), timeout: Duration::from_secs(5), on_error: OnError::Reinject };
}

impl Default for Trust {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens when a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The fault is reinjected, and the VM goes on without the hook.
    Reinject,
    /// The VM ends, and reports the failure.
    Stop,
}

impl OnError {
    /// All values, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::Reinject, Self::Stop];

    /// Spelling in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reinject => "reinject",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
