//! Hooks for tests.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use vector14_hook::{Fault, Guest, Hook, Result, Verdict};

/// Records every fault, and passes.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Fault>>>);

impl Recorder {
    pub fn faults(&self) -> Vec<Fault> {
        self.0.lock().unwrap().clone()
    }
}

impl Hook for Recorder {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
        self.0.lock().unwrap().push(*fault);
        Ok(Verdict::Pass)
    }
}

/// Gives the same verdict to every fault in a range of addresses, and passes the others.
pub struct Act {
    pub window: Range<u64>,
    pub verdict: Verdict,
}

impl Hook for Act {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
        Ok(if self.window.contains(&fault.address.0) { self.verdict.clone() } else { Verdict::Pass })
    }
}

/// Panics at the fault with this sequence number.
pub fn panic_at(sequence: u64) -> impl Hook {
    struct Panics(u64);
    impl Hook for Panics {
        fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
            assert_ne!(fault.sequence, self.0, "as the test wants it");
            Ok(Verdict::Pass)
        }
    }
    Panics(sequence)
}
