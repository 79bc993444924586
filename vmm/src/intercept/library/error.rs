//! Why a library can't be loaded, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::abi::{Mismatch, SYMBOL};

/// Why a library can't be loaded.
#[derive(Debug, thiserror::Error)]
#[error("hook library {}: {reason}", .path.display())]
pub struct LibraryError {
    /// Path of the library.
    pub path: PathBuf,
    /// What is wrong with the library.
    pub reason: Reason,
}

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file can't be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// The path is a folder, or something else that is not a regular file.
    #[error("not a regular file")]
    NotFile,
    /// The file is far too large for a library.
    #[error("too large for a hook: {0} bytes")]
    TooLarge(u64),
    /// The file is something other than a shared library.
    #[error("{0}, not a shared library")]
    NotLibrary(String),
    /// The file is truncated or malformed.
    #[error("truncated or damaged: {0}")]
    Damaged(String),
    /// The library is built for another architecture.
    #[error("built for {0}; this vector14 runs on x86-64")]
    Architecture(String),
    /// The library does not export a hook.
    #[error("exports no symbol `{SYMBOL}`")]
    NoSymbol,
    /// The descriptor does not match this version of the hook interface.
    #[error("{0}")]
    Descriptor(Mismatch),
    /// The dynamic linker refuses to load the library.
    #[error("can't be loaded: {0}")]
    Load(String),
    /// The trial process that loaded the library ended early.
    #[error("ends the process that loads it: {0}")]
    EndsProcess(String),
    /// The trial process that loaded the library had to be killed.
    #[error("did not load within {0:?}")]
    Hangs(Duration),
    /// A trial process can't be started.
    #[error("no process can be started to try it in: {0}")]
    Trial(io::Error),
    /// The host has no room for a copy of the library.
    #[error("can't be copied into memory: {0}")]
    Host(io::Error),
}

impl LibraryError {
    /// What to do about the error.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match &self.reason {
            Reason::Unreadable(_) => {
                "build it first; a relative path starts at the folder of the config file, and cargo puts libraries into \
                 target/debug/"
            }
            Reason::NotFile | Reason::TooLarge(_) => "name the library itself, such as target/debug/libmine.so",
            Reason::NotLibrary(_) => {
                "name the library that was built, such as target/debug/libmine.so; cargo builds one if Cargo.toml says \
                 crate-type = [\"cdylib\"], and cc does with -shared -fPIC"
            }
            Reason::Damaged(_) => "build it again",
            Reason::Architecture(_) => "rebuild it for x86-64 Linux (cargo build --target x86_64-unknown-linux-gnu)",
            Reason::NoSymbol => {
                "rebuild it with vector14_hook::export!(...) in Rust, or with a `const vector14_descriptor vector14_hook` \
                 in C (`vector14 hook header`)"
            }
            Reason::Descriptor(Mismatch::Magic(_) | Mismatch::Version(_) | Mismatch::Size { .. }) => {
                "rebuild it against this vector14: its SDK in Rust (hooks/sdk), or the header that `vector14 hook header` prints"
            }
            Reason::Descriptor(Mismatch::Text(_) | Mismatch::NoOnFault) => {
                "fix and rebuild it: the header that `vector14 hook header` prints says what is required"
            }
            Reason::Load(_) => {
                "if it needs another library, install that or name its folder in LD_LIBRARY_PATH; if a symbol is missing, \
                 rebuild it on this machine"
            }
            Reason::EndsProcess(_) | Reason::Hangs(_) => {
                "build it again: it is damaged, or its constructors or destructors crash or do not return"
            }
            Reason::Trial(_) => "check that /proc is mounted, and that the host can start another process (ulimit -u)",
            Reason::Host(_) => "free memory on the host; see also the sysctl vm.memfd_noexec",
        }
    }
}
