//! Writes the embedded tiny guest kernel to the file that is named, for a debugger or another VMM.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: extract FILE");
        return ExitCode::from(2);
    };
    match std::fs::write(&path, vector14_guest::TINY) {
        Ok(()) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
