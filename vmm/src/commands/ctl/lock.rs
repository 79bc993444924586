//! The lock file beside a control socket. The run that holds the lock may create and replace the socket.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::BindError;

/// A locked file. Its mode lets only its owner open it, so no other user can hold the lock. The file is removed on
/// drop.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// The open file, which holds the lock until it is closed.
    _file: File,
}

impl Lock {
    /// Creates and locks the file `<socket>.lock`.
    ///
    /// # Errors
    /// [`BindError::InUse`] if another run holds the lock, [`BindError::Squatted`] if the file is another user's.
    pub(super) fn take(socket: &Path) -> Result<Self, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let host = |source| BindError::Host { path: path.clone(), source };
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(BindError::InUse { path: socket.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(host(error)),
            }
            // Another run may have ended, and removed the file, between the two calls above. The locked file is then
            // not the one at the path, which is tried next.
            let locked = file.metadata().map_err(host)?.ino();
            if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == locked) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If the file stays, the next run takes it over.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> Result<File, BindError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let opened = options.open(path).and_then(|file| Ok((file.metadata()?.uid(), file)));
    let owner = match &opened {
        Ok((owner, _)) => Some(*owner),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::symlink_metadata(path).ok().map(|found| found.uid())
        }
        Err(_) => None,
    };
    match owner {
        Some(owner) if owner != rustix::process::geteuid().as_raw() => {
            Err(BindError::Squatted { path: path.to_owned(), owner })
        }
        Some(_) | None => {
            opened.map(|(_, file)| file).map_err(|source| BindError::Host { path: path.to_owned(), source })
        }
    }
}
