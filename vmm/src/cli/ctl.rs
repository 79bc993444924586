//! `vector14 ctl`: inspects and changes a running VM through its control socket.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use serde_json::{Map, Value, json};
use vector14::config::parse_option;
use vector14::ctl::{self, Client, ClientError, Response};
use vector14::display;
use vector14::vm::{RunState, Standing};

use super::{Failure, output};

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// The VM's control socket, as given to `vector14 run --control`
    #[arg(value_hint = ValueHint::FilePath)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
    0  done                            2  bad usage
    1  the VM refused                  3  no VM, or the VM has ended";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the VM is doing, and its counts
    Status,
    /// Pause all vCPUs; the config's timeout does not run meanwhile
    Pause,
    /// Resume the vCPUs
    Resume,
    /// Stop the VM in an orderly way
    Stop,
    /// Put fault interception back into the guest
    Attach,
    /// Take fault interception out of the guest
    Detach,
    /// List the hooks in the order in which they are asked
    Hooks,
    /// Add a hook at the end of the chain
    Add {
        #[command(flatten)]
        hook: NewHook,
        /// Insert it at this position instead; 0 is asked first
        #[arg(long, value_name = "N")]
        position: Option<usize>,
    },
    /// Remove a hook from the chain, and end it
    Remove {
        /// The hook's name in the chain
        name: String,
    },
    /// Replace a hook with a new one, which takes its place and name
    Replace {
        /// The old hook's name in the chain
        name: String,
        #[command(flatten)]
        hook: NewHook,
    },
    /// Change the order of the hooks
    Reorder {
        /// The names of all hooks, in the new order
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Change options of a hook: it is created again, in the same place
    Set {
        /// The hook's name in the chain
        name: String,
        /// The options to change; these may include budget, timeout and on_error
        #[arg(required = true, value_name = "KEY=VALUE")]
        options: Vec<String>,
    },
    /// Print a line of counts every second, until the VM ends or you interrupt it
    Stats {
        /// Time between two lines
        #[arg(long, value_name = "TIME", default_value = "1s")]
        interval: humantime::Duration,
    },
}

/// A hook to be created.
#[derive(Debug, clap::Args)]
struct NewHook {
    /// A hook that `vector14 hooks` lists, or the path of a library; a path must contain a slash
    hook: String,
    /// Its options, as in a config file, including budget, timeout and on_error. Relative paths start here
    #[arg(value_name = "KEY=VALUE")]
    options: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut client = Client::connect(&args.socket)?;
    let request = request(&args.command)?;
    let response = client.request(&request)?;
    match (&args.command, args.json) {
        (Command::Stats { .. }, json) => follow(&mut client, &request, response, json)?,
        (_, true) => output::print_json(&json!(response))?,
        (command, false) => output::print(&show(command, &response))?,
    }
    Ok(0)
}

/// The request that a command stands for.
fn request(command: &Command) -> Result<ctl::Command, Failure> {
    Ok(match command {
        Command::Status => ctl::Command::Status,
        Command::Pause => ctl::Command::Pause,
        Command::Resume => ctl::Command::Resume,
        Command::Stop => ctl::Command::Stop,
        Command::Attach => ctl::Command::Attach,
        Command::Detach => ctl::Command::Detach,
        Command::Hooks => ctl::Command::Hooks,
        Command::Add { hook, position } => {
            let ((kind, path), options) = (hook.source(), parse_options(&hook.options)?);
            ctl::Command::Add { hook: kind, path, options, base: base()?, position: *position }
        }
        Command::Remove { name } => ctl::Command::Remove { name: name.clone() },
        Command::Replace { name, hook } => {
            let ((kind, path), options) = (hook.source(), parse_options(&hook.options)?);
            ctl::Command::Replace { name: name.clone(), hook: kind, path, options, base: base()? }
        }
        Command::Reorder { names } => ctl::Command::Reorder { names: names.clone() },
        Command::Set { name, options } => ctl::Command::Set { name: name.clone(), options: parse_options(options)? },
        Command::Stats { interval } => {
            ctl::Command::Stats { interval_ms: Some(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)) }
        }
    })
}

impl NewHook {
    /// The hook's type, or its library.
    fn source(&self) -> (Option<String>, Option<PathBuf>) {
        match self.hook.contains('/') {
            true => (None, Some(PathBuf::from(&self.hook))),
            false => (Some(self.hook.clone()), None),
        }
    }
}

/// Where a new hook's relative paths start.
fn base() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(Failure::CurrentDirectory)
}

fn parse_options(options: &[String]) -> Result<Map<String, Value>, Failure> {
    options.iter().map(|option| parse_option(option)).collect::<Result<_, _>>().map_err(Failure::Option)
}

/// The response to `command`, for a person.
fn show(command: &Command, response: &Response) -> String {
    let line = match response {
        Response::Status(status) => return display::status(status, output::style()),
        Response::Stats(stats) => return display::stats(stats, output::style()),
        Response::Hooks { hooks } if matches!(command, Command::Hooks) => {
            return display::hooks(hooks, output::style());
        }
        Response::Hooks { .. } => "reordered: the chain is empty".to_owned(),
        Response::Paused(Standing { held, running }) if held < running => {
            format!("paused, but {held} of {running} vCPUs have not stopped yet")
        }
        Response::Paused(_) => "paused".to_owned(),
        Response::Interception { armed } => match (command, armed) {
            (Command::Detach, true) => "detached; takes effect when the vCPUs resume",
            (Command::Detach, false) => "detached",
            (_, true) => "attached",
            (_, false) => "attached, but not armed yet",
        }
        .to_owned(),
        Response::Order { hooks } => format!("reordered: {}", hooks.join(", ")),
        Response::Added { name } => format!("added {name}"),
        Response::TakenOut { waiting } => {
            let (done, name) = match command {
                Command::Replace { name, .. } => ("replaced", name.as_str()),
                Command::Set { name, .. } => ("changed", name.as_str()),
                Command::Remove { name } => ("removed", name.as_str()),
                _ => ("taken out", ""),
            };
            let waiting = if *waiting > 0 { "; the old hook ends as soon as no vCPU is in it" } else { "" };
            format!("{done} {name}{waiting}")
        }
        Response::Done(_) if matches!(command, Command::Stop) => "ending".to_owned(),
        Response::Done(_) => "running".to_owned(),
    };
    display::printable(&line) + "\n"
}

/// Prints counts, beginning with `response`, until the VM ends.
fn follow(client: &mut Client, request: &ctl::Command, mut response: Response, json: bool) -> Result<(), Failure> {
    let style = output::style();
    if !json {
        output::print(&display::stats_head(style))?;
    }
    while let Response::Stats(stats) = response {
        let line = json.then(|| display::printable_json(&format!("{}\n", json!(stats))).into_owned());
        output::print(&line.unwrap_or_else(|| display::stats(&stats, style)))?;
        if stats.state == RunState::Ended {
            break;
        }
        response = client.next_answer(request)?;
    }
    Ok(())
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match error {
            ClientError::Refused(_) => 1,
            ClientError::NoSocket { .. }
            | ClientError::NotASocket { .. }
            | ClientError::Denied { .. }
            | ClientError::Dead { .. }
            | ClientError::NotVector14 { .. }
            | ClientError::OtherProtocol { .. }
            | ClientError::UnknownResult { .. }
            | ClientError::Ended
            | ClientError::Host { .. } => 3,
        };
        Self::Control { message: error.to_string(), help: error.help(), status }
    }
}
