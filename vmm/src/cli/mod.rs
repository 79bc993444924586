//! The command line: one file a command.
//!
//! # Layout
//! - [`args`]: what all commands share
//! - [`demo`], [`run`], [`ctl`], [`replay`], [`check`], [`doctor`], [`hooks`], [`hook`], [`bench`], [`completions`]: the commands
//! - [`vm`]: where the command line meets the library's VM
//! - [`failure`]: why a command ends badly, and its exit status
//! - [`logging`], [`output`]: to stderr and to stdout

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
mod output;
mod replay;
mod run;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Runs a guest under KVM and shows every one of its page faults to hooks.
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
    0  the guest ended well            5  a hook stopped the guest
    1  the guest ended with a failure  124  the config's timeout was over
    2  bad config or usage             128+n  signal n; `vector14 ctl` counts as SIGTERM
    3  this host can't run it
    4  the guest crashed";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a fault being reinjected and one being resolved, with a guest that is built in
    Demo(demo::Args),
    /// Run the guest that a config file describes
    Run(run::Args),
    /// Look at a VM that runs, and change it
    Ctl(ctl::Args),
    /// Ask hooks about the faults of a trace, without a guest
    Replay(replay::Args),
    /// Check a config file and say what it would run
    Check(check::Args),
    /// Say what this host's KVM offers, which engines can run, and what to do about what is missing
    Doctor(doctor::Args),
    /// List the hooks that a config can name, with their options
    Hooks(hooks::Args),
    /// Start a hook of your own
    #[command(subcommand)]
    Hook(hook::Command),
    /// Measure what a fault costs on this host, beside a bare exit
    Bench(bench::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Does what the process's arguments ask for.
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
