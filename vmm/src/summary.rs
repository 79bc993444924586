//! What a run comes to: why it stopped, and the ledger of its faults. Serialised as it stands for `run --summary`.

use serde::{Serialize, Serializer};
use vector14_hook::{ErrorCode, Fault, Report, Verdict};

/// Everything that is known of a VM when it has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Why it ended.
    pub stop: Stop,
    /// The engine that was in force: `gate` or `off`.
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
    /// The hooks, in chain order.
    pub hooks: Vec<HookSummary>,
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
            Self::Signal { signal } => Fields { signal: Some(*signal), ..because("signal") },
        }
        .serialize(serializer)
    }
}

/// Faults seen, and how many had each bit of the error code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the bits of the error code, see ErrorCode")]
pub struct Faults {
    pub total: u64,
    pub user: u64,
    pub write: u64,
    pub fetch: u64,
    pub present: u64,
    pub reserved: u64,
}

impl Faults {
    /// Counts one fault.
    pub fn add(&mut self, fault: &Fault) {
        let has = |bit| u64::from(fault.error_code.contains(bit));
        self.total += 1;
        self.user += has(ErrorCode::USER);
        self.write += has(ErrorCode::WRITE);
        self.fetch += has(ErrorCode::FETCH);
        self.present += has(ErrorCode::PRESENT);
        self.reserved += has(ErrorCode::RESERVED);
    }

    /// Adds another vCPU's count.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.user += other.user;
        self.write += other.write;
        self.fetch += other.fetch;
        self.present += other.present;
        self.reserved += other.reserved;
    }
}

/// What became of the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the verdicts, see Verdict")]
pub struct Verdicts {
    pub reinject: u64,
    pub resolve: u64,
    pub skip: u64,
    pub raise: u64,
    pub stop: u64,
}

impl Verdicts {
    /// Counts what was done with one fault; `Pass` counts as the reinjection that it comes to.
    pub fn add(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Pass | Verdict::Reinject => &mut self.reinject,
            Verdict::Resolve => &mut self.resolve,
            Verdict::Skip => &mut self.skip,
            Verdict::Raise(_) => &mut self.raise,
            Verdict::Stop(_) => &mut self.stop,
        } += 1;
    }

    /// Adds another vCPU's count.
    pub fn merge(&mut self, other: &Self) {
        self.reinject += other.reinject;
        self.resolve += other.resolve;
        self.skip += other.skip;
        self.raise += other.raise;
        self.stop += other.stop;
    }

    /// All of them: equal to the faults seen.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reinject + self.resolve + self.skip + self.raise + self.stop
    }
}

/// Returns from KVM_RUN, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exits {
    /// All of them.
    pub total: u64,
    /// Intercepted faults.
    pub fault: u64,
    /// Port I/O that is not a fault.
    pub io: u64,
    /// Memory-mapped I/O.
    pub mmio: u64,
    /// HLT (only where KVM does not handle it itself).
    pub hlt: u64,
    /// Entries that were interrupted by our own signal.
    pub kick: u64,
    /// Anything else.
    pub other: u64,
}

impl Exits {
    /// Adds another vCPU's count.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.fault += other.fault;
        self.io += other.io;
        self.mmio += other.mmio;
        self.hlt += other.hlt;
        self.kick += other.kick;
        self.other += other.other;
    }
}

/// What is known of one hook at the end.
#[derive(Clone, Debug, Serialize)]
pub struct HookSummary {
    /// Its name.
    pub name: String,
    /// How often it was called.
    pub calls: u64,
    /// How often it panicked, failed, or gave a verdict that could not be carried out.
    pub faulted: u64,
    /// What it had to say.
    pub report: Report,
}

/// A duration in whole milliseconds.
#[must_use]
pub(crate) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
