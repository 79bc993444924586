//! Why a config can't be loaded.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use super::Problem;

/// Largest config file that is read, in bytes; a larger file was probably named by mistake.
pub(super) const FILE_MAX: u64 = 1 << 20;

/// Why a config can't be loaded.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("config file {} does not exist", .path.display())]
    #[diagnostic(help("name a TOML file, such as one with the line\n    boot.kernel = \"tiny\""))]
    NotFound {
        /// The file, as the user named it.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("config file {} can't be read: {error}", .path.display())]
    Unreadable {
        /// The file, as the user named it.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
    /// The path is a directory.
    #[error("config file {} is a directory", .path.display())]
    #[diagnostic(help("name the TOML file in it"))]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is far too large for a config.
    #[error("config file {} is larger than {} KiB", .path.display(), FILE_MAX >> 10)]
    #[diagnostic(help("name a TOML file; a kernel is named inside of it, as boot.kernel"))]
    TooLarge {
        /// The file, as the user named it.
        path: PathBuf,
    },
    /// The file, or a `--set` applied to it, has errors.
    #[error("{name}: {}", count(.problems.len()))]
    Invalid {
        /// The file, as the user named it.
        name: String,
        /// Every error, in the order of the text.
        #[related]
        problems: Vec<Problem>,
    },
}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}
