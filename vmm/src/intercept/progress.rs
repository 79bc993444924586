//! The loop detector: finds faults that are resolved repeatedly while the guest makes no progress.
//!
//! A faulting instruction is restarted from the state that it had. When a vCPU's registers at a resolved fault are
//! the same as at the one before, the guest has not moved; after enough of those in a row, it never will.

use vector14_hook::{Registers, Verdict};

/// Number of resolved faults in a row without progress that make a loop. An instruction can legitimately fault on a
/// few dozen pages before it completes (a gather of 16 elements, each across two pages, with tables that are paged
/// too).
pub const LOOP_LIMIT: u32 = 1000;

/// One vCPU's progress.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    registers: Registers,
    resolved: u32,
}

impl Progress {
    /// Notes that `verdict` is about to be applied to a fault that interrupted a context with these `registers`.
    /// Returns true if that would be the next round of a loop.
    pub(crate) fn is_loop(&mut self, registers: &Registers, verdict: &Verdict) -> bool {
        if *verdict != Verdict::Resolve {
            self.resolved = 0;
            return false;
        }
        if self.registers == *registers {
            self.resolved += 1;
        } else {
            self.registers = *registers;
            self.resolved = 1;
        }
        let stuck = self.resolved > LOOP_LIMIT;
        if stuck {
            self.resolved = 0;
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_does_not_move_is_in_a_loop_after_the_limit() {
        let mut progress = Progress::default();
        let registers = Registers { rip: 0x1000, ..Registers::default() };
        for _ in 0..LOOP_LIMIT {
            assert!(!progress.is_loop(&registers, &Verdict::Resolve));
        }
        assert!(progress.is_loop(&registers, &Verdict::Resolve));
        assert!(!progress.is_loop(&registers, &Verdict::Resolve), "the count starts again");
    }

    #[test]
    fn any_register_that_moves_is_progress() {
        let mut progress = Progress::default();
        for rcx in 0..u64::from(10 * LOOP_LIMIT) {
            let registers = Registers { rcx: rcx / 100, ..Registers::default() };
            assert!(!progress.is_loop(&registers, &Verdict::Resolve));
        }
    }

    #[test]
    fn another_verdict_in_between_starts_the_count_again() {
        let mut progress = Progress::default();
        let registers = Registers::default();
        for round in 0..10 * LOOP_LIMIT {
            let verdict = if round % LOOP_LIMIT == 0 { Verdict::Skip } else { Verdict::Resolve };
            assert!(!progress.is_loop(&registers, &verdict));
        }
    }
}
