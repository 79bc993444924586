//! The result of a run: why it stopped, and the ledger of its faults. `run --summary` serialises it as is.

use serde::{Deserialize, Serialize, Serializer};
use vector14_hook::{Counter, ErrorCode, Fault, Report, Verdict};

/// Everything that is known of a VM after it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Why it ended.
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

/// Why a VM ended. Always serialised with `reason` and `status`; `status` is null unless the guest gave one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest wrote to its exit port.
    Exit {
        /// `(v << 1) | 1` for the value `v` that it wrote, as QEMU's isa-debug-exit reports it; 1 is a pass.
        status: u32,
    },
    /// The guest turned the machine off (ACPI S5).
    PowerOff,
    /// The guest reset the machine: ACPI reset register, i8042 pulse.
    Reset,
    /// The guest can't go on: a triple fault, an instruction that KVM can't emulate, a state that can't be entered.
    Crash {
        /// What KVM or the interception saw.
        detail: String,
    },
    /// A hook's verdict was `Stop`.
    Hook {
        /// The hook's name.
        hook: String,
        /// What the hook said.
        detail: String,
    },
    /// The run time that the config allows was over.
    Deadline,
    /// A [`VmHandle`](crate::vm::VmHandle) requested the end, as `vector14 ctl … stop` does.
    Request,
    /// A signal asked for the end.
    Signal {
        /// The signal's number.
        signal: i32,
    },
}

impl Stop {
    /// Exit status of the `vector14` command for this end.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exit { status: 1 } | Self::PowerOff | Self::Reset => 0,
            Self::Exit { .. } => 1,
            Self::Crash { .. } => 4,
            Self::Hook { .. } => 5,
            Self::Deadline => 124,
            // The same as for SIGTERM.
            Self::Request => 128 + 15,
            Self::Signal { signal } => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(u8::MAX)),
        }
    }
}

impl Serialize for Stop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Default, Serialize)]
        struct Fields<'a> {
            reason: &'static str,
            status: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hook: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            signal: Option<i32>,
        }
        let because = |reason| Fields { reason, ..Fields::default() };
        match self {
            Self::Exit { status } => Fields { status: Some(*status), ..because("exit") },
            Self::PowerOff => because("power-off"),
            Self::Reset => because("reset"),
            Self::Crash { detail } => Fields { detail: Some(detail), ..because("crash") },
            Self::Hook { hook, detail } => Fields { hook: Some(hook), detail: Some(detail), ..because("hook") },
            Self::Deadline => because("deadline"),
            Self::Request => because("request"),
            Self::Signal { signal } => Fields { signal: Some(*signal), ..because("signal") },
        }
        .serialize(serializer)
    }
}

/// Defines a struct of counts, and the counters that a vCPU keeps of them while others may read.
macro_rules! counts {
    (
        $(#[$doc:meta])* $name:ident,
        $(#[$live_doc:meta])* $live:ident { $($(#[$field_doc:meta])* $field:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
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
    /// Counts the verdict on one fault; `Pass` counts as the reinjection that it leads to.
    pub(crate) fn add(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Pass | Verdict::Reinject | Verdict::ReinjectAs { .. } => &self.reinject,
            Verdict::Resolve => &self.resolve,
            Verdict::Skip => &self.skip,
            Verdict::Raise(_) => &self.raise,
            Verdict::Stop(_) => &self.stop,
        }
        .add(1);
    }
}

impl Verdicts {
    /// Sum of all verdicts; equals the number of faults seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reinject + self.resolve + self.skip + self.raise + self.stop
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

/// Summary of one hook at its end.
#[derive(Clone, Debug, Serialize)]
pub struct HookSummary {
    /// Its name.
    pub name: String,
    /// Number among all hooks that the VM has had, from 1; tells hooks of the same name apart.
    pub number: u64,
    /// Number of calls.
    pub calls: u64,
    /// Number of times it panicked, failed, or gave a verdict that could not be applied.
    pub faulted: u64,
    /// Number of calls that took longer than the budget.
    pub over_budget: u64,
    /// Number of loops: it resolved a fault repeatedly and the guest made no progress.
    pub loops: u64,
    /// Whether the hook failed and was no longer asked.
    pub left_out: bool,
    /// What ended its time in the chain.
    pub until: Until,
    /// Whether the hook ended. It did not if a vCPU is stuck in it, or if its end took longer than its timeout; its
    /// report is then empty.
    pub ended: bool,
    /// The hook's own report.
    pub report: Report,
}

/// Largest size of a report's text, in bytes.
const REPORT_MAX: usize = 1 << 20;

/// Truncates a report to 1 MiB of text; if that leaves anything out, adds a warning.
pub(crate) fn bounded(mut report: Report) -> Report {
    let mut room = REPORT_MAX;
    let mut left_out = 0;
    let mut fits = |texts: &[String]| {
        let size = texts.iter().map(|text| text.len() + 1).sum();
        let rest = room.checked_sub(size);
        room = rest.unwrap_or(0);
        left_out += u64::from(rest.is_none());
        rest.is_some()
    };
    report.tables.retain(|table| fits(std::slice::from_ref(&table.title)) && fits(&table.columns));
    for table in &mut report.tables {
        table.rows.retain(|row| fits(row));
    }
    report.warnings.retain(|warning| fits(std::slice::from_ref(warning)));
    if left_out > 0 {
        report
            .warnings
            .push(format!("the report is longer than 1 MiB: {left_out} rows, tables or warnings are left out"));
    }
    report
}

/// Totals of several hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HookTotals {
    /// Number of hooks.
    pub hooks: u64,
    /// The sum of [`HookSummary::calls`].
    pub calls: u64,
    /// The sum of [`HookSummary::faulted`].
    pub faulted: u64,
    /// The sum of [`HookSummary::over_budget`].
    pub over_budget: u64,
    /// The sum of [`HookSummary::loops`].
    pub loops: u64,
}

impl HookTotals {
    /// Adds a hook to the totals.
    pub fn add(&mut self, hook: &HookSummary) {
        self.hooks += 1;
        self.calls += hook.calls;
        self.faulted += hook.faulted;
        self.over_budget += hook.over_budget;
        self.loops += hook.loops;
    }
}

/// What ended a hook's time in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// The VM ended.
    End,
    /// Another hook replaced it.
    Replaced,
    /// It was taken out.
    Removed,
}

/// A duration in whole milliseconds.
#[must_use]
pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use vector14_hook::Table;

    use super::*;

    fn report(rows: usize, cell: usize, warnings: usize) -> Report {
        let row = || vec!["x".repeat(cell), String::new()];
        let columns = vec!["a".to_owned(), "b".to_owned()];
        let table = Table { title: "t".to_owned(), columns, rows: (0..rows).map(|_| row()).collect() };
        Report { tables: vec![table], warnings: vec!["w".repeat(cell); warnings] }
    }

    #[test]
    fn a_usual_report_is_left_as_it_is() {
        assert_eq!(bounded(report(1000, 100, 10)), report(1000, 100, 10));
    }

    #[test]
    fn a_report_is_bounded_and_says_what_it_lacks() {
        for (rows, cell, warnings) in [(1_000_000, 10, 3), (3, 1 << 20, 0), (0, 1000, 10_000), (2_000_000, 0, 0)] {
            let long = bounded(report(rows, cell, warnings));
            let texts = long.tables.iter().flat_map(|table| table.rows.iter().flatten()).chain(&long.warnings);
            assert!(texts.map(|text| text.len() + 1).sum::<usize>() < REPORT_MAX + 200);
            let kept = long.tables[0].rows.len() + long.warnings.len() - 1;
            let said = format!("1 MiB: {} rows, tables or warnings are left out", rows + warnings - kept);
            assert!(long.warnings.last().unwrap().contains(&said), "{:?} instead of {said}", long.warnings.last());
        }
    }
}
