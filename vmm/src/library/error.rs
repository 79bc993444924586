//! Why a library is not loaded, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vector14_hook::abi::{Mismatch, SYMBOL};

/// Why a library is not loaded.
#[derive(Debug, thiserror::Error)]
#[error("hook library {}: {reason}", .path.display())]
pub struct LibraryError {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It can't be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It is a folder, or something else that is no file.
    #[error("no regular file")]
    NotFile,
    /// It is far too large for a library.
    #[error("{0} bytes are far too many for a hook")]
    TooLarge(u64),
    /// It is something else.
    #[error("{0}, and no shared library")]
    NotLibrary(String),
    /// It is cut short, or makes no sense.
    #[error("cut short or damaged: {0}")]
    Damaged(String),
    /// It is for other machines.
    #[error("made for {0}; this vector14 runs on x86-64")]
    Architecture(String),
    /// It is a library of some other kind.
    #[error("exports no symbol `{SYMBOL}`")]
    NoSymbol,
    /// Its descriptor is not one of ours.
    #[error("{0}")]
    Descriptor(Mismatch),
    /// The dynamic linker refuses it.
    #[error("can't be loaded: {0}")]
    Load(String),
    /// The process that has loaded it for a trial came to an end.
    #[error("ends the process that loads it: {0}")]
    EndsProcess(String),
    /// The process that has loaded it for a trial had to be killed.
    #[error("is not loaded after {0:?}")]
    Hangs(Duration),
    /// There is no process in which it can be tried.
    #[error("can't be tried in a process of its own: {0}")]
    Trial(io::Error),
    /// The host has no room for a copy of it.
    #[error("can't be copied into memory: {0}")]
    Host(io::Error),
}

impl LibraryError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match &self.reason {
            Reason::Unreadable(_) => {
                "build it first; a relative path starts at the folder of the config file, and a library of cargo's is in \
                 target/debug/"
            }
            Reason::NotFile | Reason::TooLarge(_) => "name the library itself, such as target/debug/libmine.so",
            Reason::NotLibrary(_) => {
                "name the library that was built, such as target/debug/libmine.so; cargo makes one where Cargo.toml says \
                 crate-type = [\"cdylib\"], and cc with -shared -fPIC"
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
                "mend and rebuild it: the header that `vector14 hook header` prints says what has to be there"
            }
            Reason::Load(_) => {
                "if it needs another library, install that or name its folder in LD_LIBRARY_PATH; if a symbol is missing, \
                 rebuild it on this machine"
            }
            Reason::EndsProcess(_) | Reason::Hangs(_) => {
                "build it again: it is damaged, or its constructors or destructors do not return"
            }
            Reason::Trial(_) => "see that /proc is mounted, and that the host has processes to spare (ulimit -u)",
            Reason::Host(_) => "free memory on the host; see also the sysctl vm.memfd_noexec",
        }
    }
}
