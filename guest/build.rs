//! Builds the guest kernels in `tiny/` and `multiboot/`, by a cargo of their own: they are linked for no operating
//! system, at addresses of their own choice, and optimised even where the rest is not.
//!
//! The result depends on their sources only: flags, profiles and target directories of the surrounding build are kept
//! away from them.

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

/// Variables of the surrounding build that the nested cargo would obey.
const FOREIGN: &[&str] = &["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS"];
/// Those of cargo's variables that the nested cargo needs.
const KEPT: &[&str] = &["CARGO_HOME", "CARGO_MAKEFLAGS"];

/// The kernels: the folder, and the variable that names the ELF file to the crate. The package is `vector14-FOLDER`.
const KERNELS: [(&str, &str); 2] = [("tiny", "VECTOR14_TINY"), ("multiboot", "VECTOR14_MULTIBOOT")];

fn main() -> ExitCode {
    for source in ["build.rs", "abi/Cargo.toml", "abi/src"] {
        println!("cargo::rerun-if-changed={source}");
    }
    for (folder, variable) in KERNELS {
        for source in ["Cargo.toml", "Cargo.lock", "link.ld", "src"] {
            println!("cargo::rerun-if-changed={folder}/{source}");
        }
        match build(folder) {
            Ok(kernel) => println!("cargo::rustc-env={variable}={}", kernel.display()),
            Err(error) => {
                println!("cargo::error=the guest kernel in {folder} was not built: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Builds the kernel in `folder` and returns the path of its ELF file.
fn build(folder: &str) -> Result<PathBuf, String> {
    let target_dir = Path::new(&variable("OUT_DIR")?).join(folder);
    let directory = Path::new(&variable("CARGO_MANIFEST_DIR")?).join(folder);
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
    Ok(target_dir.join(TARGET).join("release").join(format!("vector14-{folder}")))
}

fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    FOREIGN.contains(&&*name) || name.starts_with("CARGO_") && !KEPT.contains(&&*name)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
