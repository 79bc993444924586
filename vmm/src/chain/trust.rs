//! How far a hook is trusted: how long it may take, and what its failures come to.

use std::fmt;
use std::time::Duration;

/// How far a hook is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// A call that takes longer is counted and reported.
    pub budget: Duration,
    /// A call that has not returned by then hangs, and ends the VM. A hook's end is not waited for any longer.
    pub timeout: Duration,
    /// What becomes of the VM where the hook panics, fails, or gives a verdict that can't be carried out.
    pub on_error: OnError,
}

impl Trust {
    /// What holds where nobody says anything else.
    pub const DEFAULT: Self =
        Self { budget: Duration::from_millis(100), timeout: Duration::from_secs(5), on_error: OnError::Reinject };
}

impl Default for Trust {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What becomes of the VM where a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The fault is reinjected, and the VM goes on without the hook.
    Reinject,
    /// The VM ends, with what the hook said.
    Stop,
}

impl OnError {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::Reinject, Self::Stop];

    /// As the config file writes it.
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
