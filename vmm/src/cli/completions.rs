//! `vector14 completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell to print a script for
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vector14", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
