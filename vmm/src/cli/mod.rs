//! The command line: one file per command.
//!
//! # Layout
//! - [`args`]: arguments that several commands share
//! - [`demo`], [`run`], [`ctl`], [`replay`], [`check`], [`doctor`], [`hooks`], [`hook`], [`bench`], [`completions`],
//!   [`man`]: the commands
//! - [`vm`]: runs the library's VM for a command
//! - [`failure`]: why a command fails, and its exit status
//! - [`logging`], [`output`]: what goes to stderr and to stdout

mod args;
mod bench;
mod check;
mod completions;
mod ctl;
mod demo;
mod doctor;
mod failure;
mod hook;
mod hooks;
mod logging;
mod man;
mod output;
mod replay;
mod run;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Runs a guest under KVM and passes each of its page faults to hooks.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120, after_help = EXIT_STATUS, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    logging: logging::Args,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
    0  the guest ended normally        5  a hook stopped the guest
    1  the guest ended with a failure  124  the config's timeout expired
    2  bad config or usage             128+n  signal n; `vector14 ctl` counts as SIGTERM
    3  this host can't run it
    4  the guest crashed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one fault being reinjected and one being resolved, in the built-in guest
    Demo(demo::Args),
    /// Run the guest that a config file describes
    Run(run::Args),
    /// Inspect and change a running VM
    Ctl(ctl::Args),
    /// Run hooks on the faults of a recorded trace, without a guest
    Replay(replay::Args),
    /// Check a config file and report what it would run
    Check(check::Args),
    /// Report what this host's KVM offers, which engines can run, and how to fix what is missing
    Doctor(doctor::Args),
    /// List the hooks that a config can name, with their options
    Hooks(hooks::Args),
    /// Create a hook of your own
    #[command(subcommand)]
    Hook(hook::Command),
    /// Measure the cost of a fault on this host, compared with a bare exit
    Bench(bench::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the manual pages, one per command
    #[command(hide = true)]
    Man(man::Args),
}

/// Runs the command that the process's arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init(&cli.logging);
    let ended = match &cli.command {
        Command::Demo(args) => demo::run(args, cli.logging.loudness()),
        Command::Run(args) => run::run(args, cli.logging.loudness()),
        Command::Ctl(args) => ctl::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Check(args) => check::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Hooks(args) => hooks::run(args),
        Command::Hook(command) => hook::run(command),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    let status = ended.unwrap_or_else(|failure| {
        output::complain(&failure);
        failure.exit_status()
    });
    output::finish();
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
