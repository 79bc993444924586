//! Builds the tiny guest kernel in `tiny/`, by a cargo of its own: it is linked for no operating system, at an address
//! of its own choice, and optimised even where the rest is not.
//!
//! Nothing but its sources decides what comes out: flags, profiles and target directories of the surrounding build are
//! kept away from it.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "x86_64-unknown-linux-gnu";

const RUSTFLAGS: &[&str] = &[
    // Any x86-64 CPU.
    "-Ctarget-cpu=x86-64",
    // Linked at the address that it is loaded at.
    "-Crelocation-model=static",
    "-Clink-arg=-Tlink.ld",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none,-z,max-page-size=4096,-z,noexecstack",
    // In ring 0 an exception pushes its frame right below RSP.
    "-Cno-redzone=yes",
    // Ring 0 uses general registers only.
    "-Cno-vectorize-loops",
    "-Cno-vectorize-slp",
    "-Cforce-unwind-tables=no",
];

/// Variables of the surrounding build that its nested cargo would obey.
const FOREIGN: &[&str] = &["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"];
/// Those of cargo's variables that the nested cargo needs.
const KEPT: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS"];

fn main() -> ExitCode {
    for source in
        ["build.rs", "abi/Cargo.toml", "abi/src", "tiny/Cargo.toml", "tiny/Cargo.lock", "tiny/link.ld", "tiny/src"]
    {
        println!("cargo::rerun-if-changed={source}");
    }
    match build() {
        Ok(kernel) => {
            println!("cargo::rustc-env=VECTOR14_TINY={}", kernel.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("cargo::error=the tiny guest kernel was not built: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the kernel and returns the path of its ELF file.
fn build() -> Result<PathBuf, String> {
    let target_dir = Path::new(&variable("OUT_DIR")?).join("tiny");
    let directory = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("tiny");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(&directory).args(["build", "--release", "--locked", "--offline", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir);
    for (name, _) in env::vars_os().filter(|(name, _)| is_foreign(name)) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));

    let output = cargo.output().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        eprintln!("{stderr}");
        let first = stderr.lines().find(|line| line.starts_with("error")).unwrap_or("cargo said nothing");
        return Err(format!("cargo build in {}: {}: {first}", directory.display(), output.status));
    }
    Ok(target_dir.join(TARGET).join("release").join("vector14-tiny"))
}

fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    FOREIGN.contains(&&*name) || name.starts_with("CARGO_") && !KEPT.contains(&&*name)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
