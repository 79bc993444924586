//! Why there is no config.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use super::Problem;
use super::defaults::FILE_MAX;

/// Why there is no config.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    /// The file is not there.
    #[error("config file {} does not exist", .path.display())]
    #[diagnostic(help("name a TOML file, such as one with the line\n    boot.kernel = \"tiny\""))]
    NotFound {
        /// The file as its user named it.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("config file {} can't be read: {error}", .path.display())]
    Unreadable {
        /// The file as its user named it.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A directory was named.
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
        /// The file as its user named it.
        path: PathBuf,
    },
    /// The file was read, and these things are wrong with it or with the `--set`s laid over it.
    #[error("{name}: {}", count(.problems.len()))]
    Invalid {
        /// The file as its user named it.
        name: String,
        /// Everything that is wrong, in the order of the text.
        #[related]
        problems: Vec<Problem>,
    },
}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}
