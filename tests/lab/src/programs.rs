//! The project's own programs, compiled for a machine without libraries.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

/// Where the statically linked programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The `vector14` command.
    pub(crate) vector14: PathBuf,
    /// The integration tests.
    pub(crate) tests: PathBuf,
    /// The workloads of Linux guests.
    pub(crate) workloads: PathBuf,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// There is no cargo.
    #[error("cargo: {0}")]
    NoCargo(io::Error),
    /// It has failed, and has said on stderr why.
    #[error("cargo {arguments}: {status}")]
    Failed {
        /// Its arguments.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It has built something else.
    #[error("cargo has built no program `{0}`")]
    NotBuilt(&'static str),
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds them, optimised, since every instruction of theirs is emulated, and in a target folder of their own: flags other
/// than those of the usual build would rebuild that each time.
pub(crate) fn build(workspace: &Path, cache: &Path) -> Result<Programs, BuildError> {
    eprintln!("lab: building vector14, its tests and the workloads, statically linked");
    let tests = cargo(workspace, cache, &["test", "--no-run", "-p", "vector14", "--test", "integration"])?;
    let workloads = cargo(workspace, cache, &["build", "-p", "vector14-workloads"])?;
    Ok(Programs {
        vector14: executable(&tests, "vector14")?,
        tests: executable(&tests, "integration")?,
        workloads: executable(&workloads, "vector14-workloads")?,
    })
}

/// Runs cargo, and returns its messages: one JSON object a line.
fn cargo(workspace: &Path, cache: &Path, arguments: &[&str]) -> Result<String, BuildError> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(arguments);
    cargo.args(["--locked", "--quiet", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(cache.join("build"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // A third of the size, for an archive that is copied into the machine's memory at each start.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        return Err(BuildError::Failed { arguments: arguments.join(" "), status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the lab reads of a message of cargo's.
#[derive(Deserialize)]
struct Message {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executable(messages: &str, name: &'static str) -> Result<PathBuf, BuildError> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut ours = messages.filter(|message| message.target.name == name);
    ours.find_map(|message| message.executable).ok_or(BuildError::NotBuilt(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"vector14"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"vector14"},"executable":"/x/vector14"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "vector14").unwrap(), Path::new("/x/vector14"));
        assert!(executable(messages, "integration").is_err());
    }
}
