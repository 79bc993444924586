//! Executes requests.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use serde_json::{Map, Value};
use vector14_hook::HookType;

use super::protocol::{Command, Done, Refusal, Response};
use crate::commands::config::{HookConfig, Problem};
use crate::intercept::chain::NamedHook;
use crate::intercept::library::Library;
use crate::vm::{HandleError, VmHandle};

/// Default interval between the lines of `stats`.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest interval between the lines of `stats`.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The VM that clients control.
pub(super) struct Subject {
    pub(super) vm: VmHandle,
    types: &'static [HookType],
    /// Held by the client that changes the chain: creating a hook may take long.
    turn: Mutex<()>,
}

/// The answer to a request.
pub(super) enum Answer {
    /// One line.
    Once(Response),
    /// One line per interval.
    Stats(Duration),
}

impl Subject {
    pub(super) fn new(vm: VmHandle, types: &'static [HookType]) -> Self {
        Self { vm, types, turn: Mutex::new(()) }
    }

    pub(super) fn execute(&self, command: Command) -> Result<Answer, Refusal> {
        let vm = &self.vm;
        let result = match command {
            Command::Status => Response::Status(Box::new(vm.status())),
            Command::Pause => Response::Paused(vm.pause()?),
            Command::Resume => vm.resume().map(|()| Response::Done(Done {}))?,
            Command::Stop => vm.stop().map(|()| Response::Done(Done {}))?,
            Command::Attach => Response::Interception { armed: vm.attach()? },
            Command::Detach => Response::Interception { armed: vm.detach()? },
            Command::Hooks => Response::Hooks { hooks: vm.hooks() },
            Command::Stats { interval_ms } => return interval(interval_ms).map(Answer::Stats),
            Command::Add { hook, path, options, base, position } => {
                let _turn = self.turn()?;
                Response::Added { name: vm.add(self.make(hook, path, options, base)?, position)? }
            }
            Command::Remove { name } => {
                let _turn = self.turn()?;
                Response::TakenOut { waiting: vm.remove(&name)? }
            }
            Command::Replace { name, hook, path, options, base } => {
                let _turn = self.turn()?;
                vm.find(&name)?;
                Response::TakenOut { waiting: vm.replace(&name, self.make(hook, path, options, base)?)? }
            }
            Command::Reorder { names } => {
                let _turn = self.turn()?;
                vm.reorder(&names)?;
                Response::Order { hooks: names }
            }
            Command::Set { name, options } => {
                let _turn = self.turn()?;
                let changed = vm.origin(&name)?.changed(options).map_err(refusal)?;
                Response::TakenOut { waiting: vm.replace(&name, self.create(&changed)?)? }
            }
        };
        Ok(Answer::Once(result))
    }

    fn turn(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        match self.turn.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::Poisoned(turn)) => Ok(PoisonError::into_inner(turn)),
            Err(TryLockError::WouldBlock) => Err(Refusal {
                message: "another client is changing the hooks".to_owned(),
                help: Some("try again when it has finished".to_owned()),
            }),
        }
    }

    fn make(
        &self,
        name: Option<String>,
        path: Option<PathBuf>,
        options: Map<String, Value>,
        base: PathBuf,
    ) -> Result<NamedHook, Refusal> {
        let library = path
            .map(|path| Library::load(&base.join(path)))
            .transpose()
            .map_err(|error| Refusal { message: error.to_string(), help: Some(error.help().to_owned()) })?;
        let name = name.or_else(|| library.as_ref().map(|library| library.name().to_owned()));
        let name = name.ok_or_else(|| Refusal::new("`hook` is missing, and so is `path`"))?;
        self.create(&HookConfig::from_json(name, library, options, base).map_err(refusal)?)
    }

    fn create(&self, hook: &HookConfig) -> Result<NamedHook, Refusal> {
        hook.check_and_create(self.types).map_err(first_refusal)
    }
}

fn interval(millis: Option<u64>) -> Result<Duration, Refusal> {
    let interval = millis.map_or(INTERVAL, Duration::from_millis);
    if interval < SHORTEST_INTERVAL {
        return Err(Refusal::new(format!("interval_ms = {}: must be 10 or more", interval.as_millis())));
    }
    Ok(interval)
}

impl From<HandleError> for Refusal {
    fn from(error: HandleError) -> Self {
        Self::new(error.to_string())
    }
}

fn refusal(problem: Problem) -> Refusal {
    Refusal { message: problem.to_string(), help: problem.reason.help() }
}

fn first_refusal(problems: Vec<Problem>) -> Refusal {
    problems.into_iter().next().map_or_else(|| Refusal::new("the hook can't be created"), refusal)
}
