//! `vector14 ctl`: inspects and changes a running VM through its control socket.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use vector14::chain::HookStatus;
use vector14::config::parse_option;
use vector14::ctl::client::arguments;
use vector14::ctl::{Client, ClientError, Stats};
use vector14::display;
use vector14::vm::{State, Status};

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
    /// Change options of a hook: it is created anew, in the same place
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
    let (name, arguments) = request(&args.command)?;
    let result = client.request(name, arguments)?;
    match (&args.command, args.json) {
        (Command::Stats { .. }, json) => follow(&mut client, result, json)?,
        (_, true) => output::print_json(&result)?,
        (command, false) => output::print(&show(command, result)?)?,
    }
    Ok(0)
}

/// The request that a command stands for.
fn request(command: &Command) -> Result<(&'static str, Map<String, Value>), Failure> {
    Ok(match command {
        Command::Status => ("status", Map::new()),
        Command::Pause => ("pause", Map::new()),
        Command::Resume => ("resume", Map::new()),
        Command::Stop => ("stop", Map::new()),
        Command::Attach => ("attach", Map::new()),
        Command::Detach => ("detach", Map::new()),
        Command::Hooks => ("hooks", Map::new()),
        Command::Add { hook, position } => {
            let mut arguments = hook.arguments()?;
            arguments.extend(position.map(|position| ("position".to_owned(), json!(position))));
            ("add", arguments)
        }
        Command::Remove { name } => ("remove", arguments([("name", json!(name))])),
        Command::Replace { name, hook } => {
            let mut arguments = hook.arguments()?;
            arguments.insert("name".to_owned(), json!(name));
            ("replace", arguments)
        }
        Command::Reorder { names } => ("reorder", arguments([("names", json!(names))])),
        Command::Set { name, options } => {
            ("set", arguments([("name", json!(name)), ("options", parse_options(options)?)]))
        }
        Command::Stats { interval } => {
            ("stats", arguments([("interval_ms", json!(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)))]))
        }
    })
}

impl NewHook {
    fn arguments(&self) -> Result<Map<String, Value>, Failure> {
        let base = std::env::current_dir().ok();
        let options = parse_options(&self.options)?;
        let hook = if self.hook.contains('/') { "path" } else { "hook" };
        Ok(arguments([(hook, json!(self.hook)), ("options", options), ("base", json!(base))]))
    }
}

fn parse_options(options: &[String]) -> Result<Value, Failure> {
    let pairs = options.iter().map(|option| parse_option(option)).collect::<Result<Map<_, _>, _>>();
    Ok(Value::Object(pairs.map_err(Failure::Option)?))
}

/// Renders the result, for a person or for a script.
fn show(command: &Command, result: Value) -> Result<String, Failure> {
    let number = |key: &str| result[key].as_u64().unwrap_or_default();
    let waiting = match number("waiting") {
        0 => "",
        _ => "; the old hook ends as soon as no vCPU is in it",
    };
    let line = match command {
        Command::Status => return Ok(display::status(&read::<Status>(result)?, output::style())),
        Command::Hooks => {
            return Ok(display::hooks(&read::<Vec<HookStatus>>(result["hooks"].clone())?, output::style()));
        }
        Command::Stats { .. } => return Ok(display::stats(&read::<Stats>(result)?, output::style())),
        Command::Pause if number("held") < number("running") => {
            format!("paused, but {} of {} vCPUs have not stopped yet", number("held"), number("running"))
        }
        Command::Pause => "paused".to_owned(),
        Command::Resume => "running".to_owned(),
        Command::Stop => "ending".to_owned(),
        Command::Attach if result["armed"] == false => "attached, but not armed yet".to_owned(),
        Command::Attach => "attached".to_owned(),
        Command::Detach if result["armed"] == true => "detached; takes effect when the vCPUs resume".to_owned(),
        Command::Detach => "detached".to_owned(),
        Command::Add { .. } => format!("added {}", result["name"].as_str().unwrap_or_default()),
        Command::Remove { name } => format!("removed {name}{waiting}"),
        Command::Replace { name, .. } => format!("replaced {name}{waiting}"),
        Command::Set { name, .. } => format!("changed {name}{waiting}"),
        Command::Reorder { names } => format!("reordered: {}", names.join(", ")),
    };
    Ok(display::printable(&line) + "\n")
}

/// Prints counts, beginning with `line`, until the VM ends.
fn follow(client: &mut Client, mut line: Value, json: bool) -> Result<(), Failure> {
    let style = output::style();
    if !json {
        output::print(&display::stats_head(style))?;
    }
    loop {
        let stats: Stats = read(line.clone())?;
        let json = json.then(|| display::printable_json(&format!("{line}\n")).into_owned());
        output::print(&json.unwrap_or_else(|| display::stats(&stats, style)))?;
        if stats.state == State::Ended {
            return Ok(());
        }
        line = client.next_answer()?;
    }
}

/// Parses a result as the type that it should have.
fn read<T: DeserializeOwned>(result: Value) -> Result<T, Failure> {
    serde_json::from_value(result).map_err(|error| Failure::Answer { error })
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
            | ClientError::Ended
            | ClientError::Host { .. } => 3,
        };
        Self::Vcpus { message: error.to_string(), help: error.help(), status }
    }
}
