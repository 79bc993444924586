//! The `vector14` command.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    vector14::library::serve_trials();
    cli::main()
}
