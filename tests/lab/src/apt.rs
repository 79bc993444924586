//! Debian's package tools: what the release offers, downloads, and what gets installed, QEMU and compilers.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use crate::machine::{OLDEST_QEMU, QEMU};

/// A package of one version, as apt's signed lists describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The sum that the file has to have.
    pub(crate) sha256: String,
}

/// Why Debian's tools did not provide something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AptError {
    /// A tool can't be started.
    #[error("{tool}: {error}; the lab is made from Debian packages and needs a Debian host to fill its cache")]
    Missing {
        /// Its name.
        tool: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A tool has failed, and has said on stderr why.
    #[error("`{command}`: {status}; if it says that a file is not there, run `apt-get update` and try again")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The release has no such package.
    #[error("apt knows no package {pattern}: run `apt-get update`; the lab's kernels are in Debian 12 (bookworm)")]
    Unknown {
        /// Regular expression that names it.
        pattern: &'static str,
    },
    /// A package is not there in this version.
    #[error(
        "apt does not offer {name} {version} (any more): run `apt-get update`, or `make lab-update` for newer kernels"
    )]
    Gone {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// What modules are compiled with is missing and can't be installed.
    #[error("{tool} is not installed: run `apt-get install --no-install-recommends {}` as root", COMPILER_PACKAGES.join(" "))]
    NoCompiler {
        /// The program.
        tool: &'static str,
    },
    /// QEMU is missing or too old, or xz is missing, and they can't be installed.
    #[error(
        "{QEMU} {OLDEST_QEMU} or newer and xz are not both installed: on Debian 12 run `make lab` once as root, which installs \
         them, QEMU from bookworm-backports; elsewhere install your distribution's packages"
    )]
    NoTools,
    /// The file that names a source of packages can't be written.
    #[error("{BACKPORTS}: {0}")]
    Source(io::Error),
}

/// Where Debian 12 has a QEMU that is new enough.
const BACKPORTS: &str = "/etc/apt/sources.list.d/bookworm-backports.sources";
const BACKPORTS_SOURCE: &str = "\
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

/// Provides a QEMU that is new enough, and xz, which Debian compresses kernel modules with: installs them where that is allowed.
pub(crate) fn provide_tools() -> Result<(), AptError> {
    let version = |tool| Command::new(tool).arg("--version").output().map(|output| output.stdout);
    let qemu = version(QEMU).unwrap_or_default();
    if is_new_enough(&String::from_utf8_lossy(&qemu)) && version("xz").is_ok() {
        return Ok(());
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_root() || !release.lines().any(|line| line == "VERSION_CODENAME=bookworm") {
        return Err(AptError::NoTools);
    }
    eprintln!("lab: installing qemu-system-x86 and xz-utils from bookworm-backports, a source that {BACKPORTS} adds");
    std::fs::write(BACKPORTS, BACKPORTS_SOURCE).map_err(AptError::Source)?;
    refresh()?;
    let install = ["install", "-y", "-q", "--no-install-recommends", "-t", "bookworm-backports"];
    run(Command::new("apt-get").args(install).args(["qemu-system-x86", "xz-utils"]))
}

/// Whether what QEMU says of its version begins with a number that is high enough.
fn is_new_enough(version: &str) -> bool {
    numbers(version).first().is_some_and(|major| *major >= OLDEST_QEMU)
}

/// What kernel modules are built with: programs, and the packages that have them. Objtool, which comes with a kernel's
/// headers, is linked to the library.
const COMPILER: [&str; 6] = ["gcc", "make", "bc", "strip", "python3", "xz"];
const COMPILER_PACKAGES: [&str; 7] = ["gcc", "make", "bc", "binutils", "python3-minimal", "xz-utils", "libelf1"];

/// Sees to it that modules can be compiled: installs what is missing where that is allowed.
pub(crate) fn provide_compiler() -> Result<(), AptError> {
    let lacks = |tool: &&str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err();
    let Some(tool) = COMPILER.into_iter().find(lacks) else { return Ok(()) };
    if !is_root() {
        return Err(AptError::NoCompiler { tool });
    }
    eprintln!("lab: installing a compiler for kernel modules");
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    run(Command::new("apt-get").args(install).args(COMPILER_PACKAGES))
}

/// Fetches the lists of what the release offers, if this user may.
pub(crate) fn refresh() -> Result<(), AptError> {
    if is_root() { run(Command::new("apt-get").args(["update", "-q"])) } else { Ok(()) }
}

/// The newest package whose name this regular expression matches.
pub(crate) fn newest(pattern: &'static str) -> Result<Package, AptError> {
    let names = output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let names: Vec<&str> = names.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let unknown = AptError::Unknown { pattern };
    if names.is_empty() {
        return Err(unknown);
    }
    let records = output(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(names))?;
    let packages = records.split("\n\n").filter_map(parse_record);
    packages.max_by_key(|package| numbers(&package.name)).ok_or(unknown)
}

/// This version of a package.
pub(crate) fn exact(name: &str, version: &str) -> Result<Package, AptError> {
    let records = output(Command::new("apt-cache").args(["show", "--no-all-versions", &format!("{name}={version}")]));
    let package = records.ok().and_then(|records| parse_record(&records));
    package.ok_or_else(|| AptError::Gone { name: name.to_owned(), version: version.to_owned() })
}

/// Downloads a package's file into a folder.
pub(crate) fn download(packages: &[&Package], folder: &Path) -> Result<(), AptError> {
    let names = packages.iter().map(|package| format!("{}={}", package.name, package.version));
    // Without the option, root is told about each file that apt's own user could not have written there.
    run(Command::new("apt-get").args(["download", "-o", "APT::Sandbox::User=root"]).args(names).current_dir(folder))
}

/// Unpacks a package's file into a folder; nothing is installed.
pub(crate) fn unpack(file: &Path, folder: &Path) -> Result<(), AptError> {
    run(Command::new("dpkg-deb").arg("-x").args([file, folder]))
}

/// Decompresses a file with a name that ends in `.xz`, in its place.
pub(crate) fn decompress(file: &Path) -> Result<(), AptError> {
    run(Command::new("xz").args(["-d", "-f"]).arg(file))
}

fn parse_record(record: &str) -> Option<Package> {
    let field =
        |name: &str| record.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    Some(Package { name: field("Package:")?, version: field("Version:")?, sha256: field("SHA256:")? })
}

/// The numbers in a text, by which versions in names are ordered.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

fn run(command: &mut Command) -> Result<(), AptError> {
    // Standard output belongs to what runs in the lab.
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status().map_err(|error| missing(command, error))?;
    check(command, status)
}

fn output(command: &mut Command) -> Result<String, AptError> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| missing(command, error))?;
    check(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(command: &Command, error: io::Error) -> AptError {
    const TOOLS: [&str; 4] = ["apt-get", "apt-cache", "dpkg-deb", "xz"];
    let tool = TOOLS.into_iter().find(|tool| command.get_program() == *tool).unwrap_or("apt");
    AptError::Missing { tool, error }
}

fn check(command: &Command, status: ExitStatus) -> Result<(), AptError> {
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    Err(AptError::Failed { command: words.join(" "), status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_names_are_ordered_by_their_numbers() {
        assert!(numbers("linux-image-6.12.117+deb12-amd64") > numbers("linux-image-6.12.97+deb12-amd64"));
        assert!(numbers("linux-image-6.1.0-56-amd64-unsigned") > numbers("linux-image-6.1.0-9-amd64-unsigned"));
    }

    #[test]
    fn an_old_qemu_is_replaced() {
        assert!(is_new_enough("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\n"));
        assert!(!is_new_enough("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"));
        assert!(!is_new_enough(""));
    }

    #[test]
    fn a_record_has_what_is_needed() {
        let record = "Package: bash\nVersion: 5.2-1\nDescription: a shell\nSHA256: abc\n";
        let bash = Package { name: "bash".into(), version: "5.2-1".into(), sha256: "abc".into() };
        assert_eq!(parse_record(record), Some(bash));
        assert_eq!(parse_record("Package: bash\nVersion: 5.2-1\n"), None);
    }
}
