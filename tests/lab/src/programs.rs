//! The project's own programs, compiled for the lab and for guests in it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The `vector14` command. It loads shared libraries, so it is linked dynamically.
    pub(crate) vector14: PathBuf,
    /// The integration tests, likewise.
    pub(crate) tests: PathBuf,
    /// The shared libraries that the tests load.
    pub(crate) libraries: [PathBuf; 2],
    /// The workloads of Linux guests, which have no libraries: linked statically.
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
    /// The C compiler can't be run.
    #[error("cc: {0}")]
    NoCompiler(io::Error),
    /// It has failed, and has said on stderr why.
    #[error("cc {}: {status}", .source_file.display())]
    NotCompiled {
        /// What it was to compile.
        source_file: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// It has built something else.
    #[error("cargo has built no program `{0}`")]
    NotBuilt(&'static str),
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How a program finds the libraries that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linkage {
    Static,
    Dynamic,
}

impl Linkage {
    /// For rustc.
    fn flags(self) -> &'static str {
        match self {
            Self::Static => "-Ctarget-feature=+crt-static",
            Self::Dynamic => "",
        }
    }

    /// Target folder in the cache: other flags than those of the last build would rebuild everything in it.
    fn folder(self) -> &'static str {
        match self {
            Self::Static => "build-static",
            Self::Dynamic => "build",
        }
    }
}

/// Builds them, optimised, since every instruction of theirs is emulated, and in target folders of their own.
pub(crate) fn build(workspace: &Path, cache: &Path) -> Result<Programs, BuildError> {
    eprintln!("lab: building vector14, its tests and the workloads");
    let arguments = ["test", "--no-run", "-p", "vector14", "--test", "integration"];
    let messages = cargo(workspace, cache, Linkage::Dynamic, &arguments)?;
    let workloads = cargo(workspace, cache, Linkage::Static, &["build", "-p", "vector14-workloads"])?;
    let tests = executable(&messages, "integration")?;
    let in_c = cache.join("libsubject.so");
    compile(&workspace.join("tests/hooks/subject.c"), &workspace.join("hooks/sdk/include"), &in_c)?;
    Ok(Programs {
        vector14: executable(&messages, "vector14")?,
        // Cargo puts a library that tests depend on beside them.
        libraries: [tests.with_file_name("libvector14_test_hook.so"), in_c],
        tests,
        workloads: executable(&workloads, "vector14-workloads")?,
    })
}

/// Runs cargo, and returns its messages: one JSON object a line.
fn cargo(workspace: &Path, cache: &Path, linkage: Linkage, arguments: &[&str]) -> Result<String, BuildError> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(arguments);
    cargo.args(["--locked", "--quiet", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(cache.join(linkage.folder()));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", linkage.flags());
    // A third of the size, for an archive that is copied into the machine's memory at each start.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        return Err(BuildError::Failed { arguments: arguments.join(" "), status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a shared library of a source in C.
fn compile(source: &Path, headers: &Path, library: &Path) -> Result<(), BuildError> {
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-I"]).arg(headers).arg("-o").args([library, source]);
    let status = cc.status().map_err(BuildError::NoCompiler)?;
    if status.success() { Ok(()) } else { Err(BuildError::NotCompiled { source_file: source.to_owned(), status }) }
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
