//! Counts of faults, verdicts and exits: one set for each vCPU, which any thread may read.

use serde::{Deserialize, Serialize};
use vector14_hook::{Counter, ErrorCode, Fault, Verdict, VerdictKind};

/// Defines a struct of counts, and the counters that a vCPU keeps of them while others may read.
macro_rules! counts {
    (
        $(#[$doc:meta])* $name:ident,
        $(#[$live_doc:meta])* $live:ident { $($(#[$field_doc:meta])* $field:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            /// Names of the counts, in the order in which they are shown.
            pub const NAMES: [&'static str; [$(stringify!($field)),*].len()] = [$(stringify!($field)),*];

            /// All counts, in the order of [`Self::NAMES`].
            #[must_use]
            pub fn all(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field),*]
            }

            /// Adds the counts of another vCPU.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }

        $(#[$live_doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $live { $(pub(crate) $field: Counter,)* }

        impl $live {
            /// Reads the counts as they are now.
            pub(crate) fn read(&self) -> $name {
                $name { $($field: self.$field.get(),)* }
            }
        }
    };
}

counts! {
    /// Faults seen: all of them, and how many had each bit of the error code.
    Faults,
    /// [`Faults`] of one vCPU.
    FaultCounters {
        /// All faults.
        total,
        /// U: from user mode.
        user,
        /// W: writes.
        write,
        /// I: instruction fetches.
        fetch,
        /// P: the page was present, but a right was missing.
        present,
        /// RSVD: a reserved bit was set.
        reserved,
    }
}

impl FaultCounters {
    /// Counts one fault.
    pub(crate) fn add(&self, fault: &Fault) {
        let has = |bit| u64::from(fault.error_code.contains(bit));
        self.total.add(1);
        self.user.add(has(ErrorCode::USER));
        self.write.add(has(ErrorCode::WRITE));
        self.fetch.add(has(ErrorCode::FETCH));
        self.present.add(has(ErrorCode::PRESENT));
        self.reserved.add(has(ErrorCode::RESERVED));
    }
}

counts! {
    /// Verdicts on faults, by kind.
    Verdicts,
    /// [`Verdicts`] of one vCPU.
    VerdictCounters {
        /// Reinjected into the guest's own handler, unchanged or as another fault.
        reinject,
        /// Resolved: the instruction was retried.
        resolve,
        /// Skipped: the instruction was stepped over.
        skip,
        /// Raised as another exception.
        raise,
        /// Ended by stopping the VM.
        stop,
    }
}

impl VerdictCounters {
    /// Counts the verdict on one fault.
    pub(crate) fn add(&self, verdict: &Verdict) {
        let counter = match verdict.kind() {
            VerdictKind::Reinject => &self.reinject,
            VerdictKind::Resolve => &self.resolve,
            VerdictKind::Skip => &self.skip,
            VerdictKind::Raise => &self.raise,
            VerdictKind::Stop => &self.stop,
        };
        counter.add(1);
    }
}

const _: () = assert!(Verdicts::NAMES.len() == VerdictKind::ALL.len());

impl Verdicts {
    /// Sum of all verdicts; equals the number of faults seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.all().iter().sum()
    }
}

counts! {
    /// Returns from KVM_RUN, by cause.
    Exits,
    /// [`Exits`] of one vCPU.
    ExitCounters {
        /// All returns.
        total,
        /// Intercepted faults.
        fault,
        /// Port I/O that is not a fault.
        io,
        /// Memory-mapped I/O.
        mmio,
        /// HLT (only where KVM does not handle it itself).
        hlt,
        /// Entries interrupted by our own kick signal.
        kick,
        /// All others.
        other,
    }
}

/// A duration in whole milliseconds.
#[must_use]
pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_counted_under_the_name_of_its_kind() {
        assert_eq!(Verdicts::NAMES, VerdictKind::ALL.map(VerdictKind::name));
        for verdict in [Verdict::Pass, Verdict::Resolve, Verdict::Skip, Verdict::Stop("".into())] {
            let counters = VerdictCounters::default();
            counters.add(&verdict);
            let counts = counters.read().all();
            let counted: Vec<_> = Verdicts::NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(verdict.kind().name(), 1)]);
        }
    }
}
