//! What the two ends of a control socket say: requests and their results.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::stats::Stats;
use crate::commands::config::problem::advice;
use crate::intercept::chain::HookStatus;
use crate::vm::{Standing, Status};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong with the request.
    pub message: String,
    /// What to do about the refusal.
    pub help: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

/// One request, as received.
#[derive(Debug)]
pub(super) struct Request {
    /// The client's name for the request.
    pub(super) id: Value,
    pub(super) command: Result<Command, Refusal>,
}

/// The command of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Takes a snapshot of the VM: [`Response::Status`].
    Status,
    /// Pauses the VM: [`Response::Paused`].
    Pause,
    /// Resumes its vCPUs: [`Response::Done`].
    Resume,
    /// Ends the VM: [`Response::Done`].
    Stop,
    /// Starts interception: [`Response::Interception`].
    Attach,
    /// Stops interception: [`Response::Interception`].
    Detach,
    /// Lists the hooks in force: [`Response::Hooks`].
    Hooks,
    /// Adds a hook to the chain: [`Response::Added`].
    Add {
        /// Name of the hook's type, or, for a hook with a path, its name in the chain.
        hook: Option<String>,
        /// Path of its library.
        path: Option<PathBuf>,
        /// Its options, including how far it is trusted.
        #[serde(default)]
        options: Map<String, Value>,
        /// Where relative paths start, both `path` and those in the options.
        #[serde(default)]
        base: PathBuf,
        /// Position in the chain; `None`: at its end.
        position: Option<usize>,
    },
    /// Removes a hook: [`Response::TakenOut`].
    Remove {
        /// The hook's name in the chain.
        name: String,
    },
    /// Replaces a hook with a new one, which takes its place and name: [`Response::TakenOut`].
    Replace {
        /// The old hook's name in the chain.
        name: String,
        /// Name of the hook's type, or, for a hook with a path, its name in the chain.
        hook: Option<String>,
        /// Path of its library.
        path: Option<PathBuf>,
        /// Its options, including how far it is trusted.
        #[serde(default)]
        options: Map<String, Value>,
        /// Where relative paths start, both `path` and those in the options.
        #[serde(default)]
        base: PathBuf,
    },
    /// Changes the order of the hooks: [`Response::Order`].
    Reorder {
        /// The names of all hooks, in the new order.
        names: Vec<String>,
    },
    /// Changes options of a hook: [`Response::TakenOut`].
    Set {
        /// The hook's name in the chain.
        name: String,
        /// The options to change; null resets an option to its default.
        options: Map<String, Value>,
    },
    /// Sends [`Response::Stats`] at intervals, until the VM ends.
    Stats {
        /// Milliseconds between two of them; `None`: 1000.
        interval_ms: Option<u64>,
    },
}

/// The result of a request. Its JSON has no tag: which one it is follows from the command, and from its keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Response {
    /// A snapshot of the VM.
    Status(Box<Status>),
    /// Counts at one moment.
    Stats(Box<Stats>),
    /// How many vCPUs stand still.
    Paused(Standing),
    /// Interception was requested or stopped.
    Interception {
        /// Whether faults are intercepted now.
        armed: bool,
    },
    /// The hooks in force.
    Hooks {
        /// In chain order.
        hooks: Vec<HookStatus>,
    },
    /// The new order of the hooks.
    Order {
        /// Their names.
        hooks: Vec<String>,
    },
    /// A hook was added.
    Added {
        /// Its name in the chain.
        name: String,
    },
    /// A hook was taken out of the chain.
    TakenOut {
        /// How many hooks have yet to end: a vCPU is still in them.
        waiting: usize,
    },
    /// There is nothing to say.
    Done(Done),
}

/// An empty object. Unknown keys are refused, because any other result would parse as this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Done {}

impl Command {
    /// Whether `response` is one that this command has.
    pub(super) fn has(&self, response: &Response) -> bool {
        match self {
            Self::Status => matches!(response, Response::Status(_)),
            Self::Pause => matches!(response, Response::Paused(_)),
            Self::Resume | Self::Stop => matches!(response, Response::Done(_)),
            Self::Attach | Self::Detach => matches!(response, Response::Interception { .. }),
            Self::Hooks => matches!(response, Response::Hooks { .. }),
            Self::Add { .. } => matches!(response, Response::Added { .. }),
            Self::Remove { .. } | Self::Replace { .. } | Self::Set { .. } => {
                matches!(response, Response::TakenOut { .. })
            }
            // An empty list is one of hooks as well as of names.
            Self::Reorder { .. } => matches!(response, Response::Order { .. } | Response::Hooks { .. }),
            Self::Stats { .. } => matches!(response, Response::Stats(_)),
        }
    }
}

/// All commands, as requests name them.
const COMMANDS: [&str; 13] = [
    "status", "pause", "resume", "stop", "attach", "detach", "hooks", "add", "remove", "replace", "reorder", "set",
    "stats",
];

impl Request {
    pub(super) fn parse(line: &[u8]) -> Self {
        match serde_json::from_slice::<Map<_, _>>(line) {
            Ok(mut object) => {
                let id = object.remove("id").unwrap_or_default();
                Self { id, command: parse_command(object) }
            }
            Err(error) => Self {
                id: Value::Null,
                command: Err(Refusal {
                    message: format!("a request is a JSON object on one line: {error}"),
                    help: Some("for example {\"id\":1,\"command\":\"status\"}".to_owned()),
                }),
            },
        }
    }
}

fn parse_command(object: Map<String, Value>) -> Result<Command, Refusal> {
    let help = |got: &str| Some(advice(got, &COMMANDS.map(str::to_owned)));
    let name = match object.get("command") {
        Some(Value::String(name)) => name.clone(),
        Some(other) => {
            return Err(Refusal { message: format!("command = {other}: must be a string"), help: help("") });
        }
        None => return Err(Refusal { message: "`command` is missing".to_owned(), help: help("") }),
    };
    if !COMMANDS.contains(&name.as_str()) {
        return Err(Refusal { message: format!("unknown command `{name}`"), help: help(&name) });
    }
    serde_json::from_value(Value::Object(object)).map_err(|error| Refusal::new(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_damaged_result_passes_for_no_other() {
        for result in [json!({"state": "running"}), json!({"held": 1}), json!({"armed": 1}), json!(null)] {
            assert!(serde_json::from_value::<Response>(result.clone()).is_err(), "{result}");
        }
        let done = serde_json::from_value::<Response>(json!({})).unwrap();
        assert!(
            Command::Stop.has(&done) && !Command::Status.has(&done) && !Command::Stats { interval_ms: None }.has(&done)
        );
    }

    fn refused(line: &str) -> (Value, Refusal) {
        let Request { id, command } = Request::parse(line.as_bytes());
        (id, command.expect_err(line))
    }

    #[test]
    fn every_command_that_is_offered_is_understood() {
        for name in COMMANDS {
            let all = json!({"command": name, "name": "a", "names": [], "options": {}});
            let needed: &[&str] = match name {
                "remove" | "replace" => &["command", "name"],
                "reorder" => &["command", "names"],
                "set" => &["command", "name", "options"],
                _ => &["command"],
            };
            let object: Map<_, _> = needed.iter().map(|key| ((*key).to_owned(), all[key].clone())).collect();
            assert!(parse_command(object.clone()).is_ok(), "{object:?}");
            for key in &needed[1..] {
                let mut less = object.clone();
                less.remove(*key);
                let refusal = parse_command(less).unwrap_err();
                assert!(refusal.message.contains(&format!("missing field `{key}`")), "{name}: {refusal}");
            }
        }
    }

    #[test]
    fn the_id_comes_back_even_where_nothing_else_is_understood() {
        assert_eq!(Request::parse(b"{\"id\":[7,\"x\"],\"command\":\"hooks\"}").command, Ok(Command::Hooks));
        let (id, refusal) = refused("{\"id\":[7,\"x\"],\"command\":\"puase\"}");
        assert_eq!((id, refusal.message.as_str()), (json!([7, "x"]), "unknown command `puase`"));
        assert!(refusal.help.is_some_and(|help| help.contains("did you mean `pause`? there are: status")));
        assert_eq!(refused("{\"id\":3}").0, json!(3));
        assert!(refused("{\"command\":[]}").1.message.contains("must be a string"));
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for line in ["", "[]", "status", "{\"command\":\"status\"", "{} {}", "\u{1}", "{\"command\":\"status\"}x"] {
            assert!(refused(line).1.message.contains("a JSON object on one line"), "{line}");
        }
        let nested = format!("{{\"id\":{}", "[".repeat(10_000));
        assert!(refused(&nested).1.message.contains("recursion"), "depth is limited");
    }

    #[test]
    fn arguments_that_are_not_the_command_s_are_refused() {
        for (line, words) in [
            ("{\"command\":\"remove\",\"name\":3}", "remove: invalid type: integer `3`, expected a string"),
            ("{\"command\":\"remove\",\"name\":\"a\",\"force\":true}", "unknown field `force`"),
            ("{\"command\":\"add\",\"hook\":\"count\",\"position\":-1}", "add: invalid value: integer `-1`"),
        ] {
            let (_, refusal) = refused(line);
            assert!(refusal.message.contains(words), "{line}: {refusal}");
        }
    }
}
