//! Why there is no control socket.

use std::io;
use std::path::PathBuf;

/// Why the control socket can't be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another VM listens on the socket.
    #[error("control socket {}: another VM is controlled through it", .path.display())]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path is taken by something other than a socket.
    #[error("control socket {}: the path is taken by something that is not a socket", .path.display())]
    NotASocket {
        /// The path that was named.
        path: PathBuf,
    },
    /// The lock beside the socket is another user's, so this run can't take it.
    #[error("lock of the control socket {}: the file belongs to user {owner}", .path.display())]
    Squatted {
        /// Path of the lock.
        path: PathBuf,
        /// The other user's ID.
        owner: u32,
    },
    /// Other users could use the socket.
    #[error("control socket {}: its file system gives other users access to it (mode {mode:#o})", .path.display())]
    NotPrivate {
        /// Path of the socket.
        path: PathBuf,
        /// The permissions that the socket got.
        mode: u32,
    },
    /// The host returned an error.
    #[error("control socket {}: {source}", .path.display())]
    Host {
        /// Path of the socket.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

impl BindError {
    /// What to do about the error, if anything can be done.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => Some("give each run a socket of its own, or end the other run"),
            Self::NotASocket { .. } => Some("the file was left as it is; name an unused path"),
            Self::Squatted { .. } => Some("name a path in a folder of your own"),
            Self::NotPrivate { .. } => {
                Some("name a path in a file system of this host, such as one below /run or /tmp")
            }
            Self::Host { source, .. } if source.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                Some("the path of a socket has at most 108 bytes: a path relative to the folder may be shorter")
            }
            Self::Host { .. } => None,
        }
    }
}
