//! What a run comes to: why it stopped, and the ledger of its faults. Serialised as it stands for `run --summary`.

use serde::{Deserialize, Serialize, Serializer};
use vector14_hook::{Counter, ErrorCode, Fault, Report, Verdict};

/// Everything that is known of a VM when it has ended.
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
    /// How many vCPUs there were.
    pub vcpus: u32,
    /// Faults seen, by kind.
    pub faults: Faults,
    /// What became of them. The five add up to `faults.total`.
    pub verdicts: Verdicts,
    /// Returns from KVM_RUN, by cause.
    pub exits: Exits,
    /// The hooks: first those that were taken out, in the order in which they ended, then those of the chain, in its order.
    pub hooks: Vec<HookSummary>,
    /// Those that were taken out so early that they are not among `hooks`: of them only the last 16 are.
    pub earlier_hooks: HookTotals,
    /// What was noticed on the way and deserves a sentence: loops, hooks left out, a guest that could not be armed.
    pub notes: Vec<String>,
}

/// Why a VM ended. Serialised with `reason` and `status` in any case; `status` is null unless the guest gave one.
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
    /// The time that the config allows was over.
    Deadline,
    /// The end was asked for through a [`VmHandle`](crate::vm::VmHandle): `vector14 ctl … stop`.
    Request,
    /// A signal asked for the end.
    Signal {
        /// Its number.
        signal: i32,
    },
}

impl Stop {
    /// The exit status of the `vector14` command for this end.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Exit { status: 1 } | Self::PowerOff | Self::Reset => 0,
            Self::Exit { .. } => 1,
            Self::Crash { .. } => 4,
            Self::Hook { .. } => 5,
            Self::Deadline => 124,
            // As for SIGTERM.
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

/// Counts, and the same as a vCPU keeps them while others may look.
macro_rules! counts {
    (
        $(#[$doc:meta])* $name:ident,
        $(#[$live_doc:meta])* $live:ident { $($(#[$field_doc:meta])* $field:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            /// Adds another vCPU's count.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }

        $(#[$live_doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $live { $(pub(crate) $field: Counter,)* }

        impl $live {
            /// The counts as they are now.
            pub(crate) fn read(&self) -> $name {
                $name { $($field: self.$field.get(),)* }
            }
        }
    };
}

counts! {
    /// Faults seen, and how many had each bit of the error code.
    Faults,
    /// [`Faults`] of one vCPU.
    FaultCounters {
        /// All of them.
        total,
        /// U: from user mode.
        user,
        /// W: writes.
        write,
        /// I: instruction fetches.
        fetch,
        /// P: a right was missing.
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
    /// What became of the faults.
    Verdicts,
    /// [`Verdicts`] of one vCPU.
    VerdictCounters {
        /// Given to the guest's own handler, as they were or as another fault.
        reinject,
        /// Tried again.
        resolve,
        /// Stepped over.
        skip,
        /// Turned into another exception.
        raise,
        /// The VM was stopped.
        stop,
    }
}

impl VerdictCounters {
    /// Counts what was done with one fault; `Pass` counts as the reinjection that it comes to.
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
    /// All of them: equal to the faults seen.
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
        /// All of them.
        total,
        /// Intercepted faults.
        fault,
        /// Port I/O that is not a fault.
        io,
        /// Memory-mapped I/O.
        mmio,
        /// HLT (only where KVM does not handle it itself).
        hlt,
        /// Entries that were interrupted by our own signal.
        kick,
        /// Anything else.
        other,
    }
}

/// What is known of one hook at the end.
#[derive(Clone, Debug, Serialize)]
pub struct HookSummary {
    /// Its name.
    pub name: String,
    /// Its number among all hooks that the VM has had, from 1: tells hooks of the same name apart.
    pub number: u64,
    /// How often it was called.
    pub calls: u64,
    /// How often it panicked, failed, or gave a verdict that could not be carried out.
    pub faulted: u64,
    /// How many of its calls took longer than its budget.
    pub over_budget: u64,
    /// How often it resolved a fault again and again without any progress of the guest's.
    pub loops: u64,
    /// Whether it was not asked any more, for it had failed.
    pub left_out: bool,
    /// Until when it was in the chain.
    pub until: Until,
    /// Whether it came to its end. A hook that a vCPU is stuck in does not, nor does one whose end takes longer than its timeout; its
    /// report is empty.
    pub ended: bool,
    /// What it had to say.
    pub report: Report,
}

/// A report may have so many bytes of text.
const REPORT_MAX: usize = 1 << 20;

/// The report without what is beyond 1 MiB of text, and a warning about that.
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

/// What several hooks come to together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HookTotals {
    /// How many they are.
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
    /// Adds a hook.
    pub fn add(&mut self, hook: &HookSummary) {
        self.hooks += 1;
        self.calls += hook.calls;
        self.faulted += hook.faulted;
        self.over_budget += hook.over_budget;
        self.loops += hook.loops;
    }
}

/// Until when a hook was in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// The end of the VM.
    End,
    /// Another hook came into its place.
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
