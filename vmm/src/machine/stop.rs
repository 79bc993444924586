//! Why a machine stopped.

use serde::{Serialize, Serializer};

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

/// Why a VM ended, as JSON: for the schema of a summary.
#[cfg(test)]
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema and its parsing are used")]
#[serde(rename = "Stop", deny_unknown_fields)]
pub(crate) struct StopJson {
    /// Which end it was.
    reason: StopReason,
    /// `(v << 1) | 1` for the value `v` that the guest wrote to its exit port; 1 is a pass.
    status: Option<u32>,
    /// What KVM, the interception or the hook said.
    detail: Option<String>,
    /// The hook that stopped the VM.
    hook: Option<String>,
    /// The signal that asked for the end.
    signal: Option<i32>,
}

#[cfg(test)]
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum StopReason {
    Exit,
    PowerOff,
    Reset,
    Crash,
    Hook,
    Deadline,
    Request,
    Signal,
}
