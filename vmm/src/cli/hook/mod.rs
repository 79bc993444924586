//! `vector14 hook`: tools for authors of hooks.

mod name;
mod project;

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use vector14_hook::abi;

use self::project::Project;
pub(super) use self::project::ProjectError;
use super::{Failure, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a cargo project for a hook, with a test and a config that runs it
    New {
        /// The project's folder, which must not exist yet; its last component is the hook's name
        #[arg(value_hint = ValueHint::DirPath)]
        name: PathBuf,
        /// The SDK to build with: the folder hooks/sdk of a checkout of vector14
        #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
        sdk: Option<PathBuf>,
    },
    /// Print vector14_hook.h, the header for hooks in C
    Header,
}

pub(super) fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::New { name, sdk } => {
            let project = Project::new(name, sdk.as_deref())?;
            project.write()?;
            output::print(&project.next_steps())?;
        }
        Command::Header => output::print(abi::HEADER)?,
    }
    Ok(0)
}
