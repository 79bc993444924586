//! The control socket in the file system. It is private to its owner, replaces a dead run's socket, and is removed at
//! the end.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::BindError;
use super::lock::Lock;

/// A listening control socket. It is removed on drop.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: whatever is at `path` later may be another run's.
    identity: (u64, u64),
    /// Released after the socket is removed.
    _lock: Lock,
}

impl ControlSocket {
    /// Creates the socket at `path`, private to the user of this process. A dead run's socket is replaced.
    ///
    /// # Errors
    /// [`BindError`]. Whatever was at `path` is then still there, unless it was a dead run's socket.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let host = |source| BindError::Host { path: path.to_owned(), source };
        // Two runs must not both find a dead run's socket: the second would remove the new socket of the first.
        let lock = Lock::take(path)?;
        if let Ok(found) = fs::symlink_metadata(path) {
            remove_dead(path, &found)?;
        }
        let (socket, metadata) = bind_private(path).map_err(host)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let _ = fs::remove_file(path);
            return Err(BindError::NotPrivate { path: path.to_owned(), mode });
        }
        // Nobody can connect before this call.
        rustix::net::listen(&socket, 16).map_err(|error| host(error.into()))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { listener: socket.into(), path: path.to_owned(), identity, _lock: lock })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = |found: Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // If the file stays, the next run replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a dead run's socket at `path`, and nothing else.
fn remove_dead(path: &Path, found: &Metadata) -> Result<(), BindError> {
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match connect(path) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {}
        // Connected, queue full, or no permission: somebody is there.
        Ok(_) | Err(_) => return Err(BindError::InUse { path: path.to_owned() }),
    }
    fs::remove_file(path).map_err(|source| BindError::Host { path: path.to_owned(), source })
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A socket that is bound but not listening yet, with its metadata in the file system.
///
/// Linux creates the file with the permissions of the socket itself, less the umask. So other users have no access at
/// any moment, and files of other threads are not affected.
fn bind_private(path: &Path) -> io::Result<(OwnedFd, Metadata)> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok((socket, fs::symlink_metadata(path)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_its_owner_s_alone_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_one_is_left_alone_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let live = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::InUse { .. })));
        drop(live);
        // A killed process leaves both files behind, and its lock is released.
        fs::write(folder.path().join("s.lock"), "").unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let next = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(next);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_program_s_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::InUse { .. })));
        assert!(path.exists());
    }

    /// A folder that others may read can be locked by any of them.
    #[test]
    fn a_folder_that_somebody_has_locked_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let locked = fs::File::open(folder.path()).unwrap();
        locked.lock().unwrap();
        ControlSocket::bind(&folder.path().join("s")).unwrap();
    }

    #[test]
    fn what_has_come_into_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
        assert!(matches!(ControlSocket::bind(&path), Err(BindError::NotASocket { .. })));
    }

    #[test]
    fn runs_that_start_at_once_agree_on_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bound: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| ControlSocket::bind(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1, "{bound:?}");
    }

    #[test]
    fn a_path_that_is_too_long_is_told() {
        let error = ControlSocket::bind(Path::new(&"x".repeat(200))).unwrap_err();
        assert!(error.help().is_some_and(|help| help.contains("108")), "{error}");
    }
}
