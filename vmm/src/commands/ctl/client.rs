//! A client of the control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::protocol::{Command, Refusal, Response};
use super::{PROTOCOL, peer};

/// How long to wait for the other end to identify itself as vector14.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing exists at the path.
    #[error("no socket at {}", .path.display())]
    NoSocket {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The file at the path is not a socket.
    #[error("{} is not a socket", .path.display())]
    NotASocket {
        /// The path that was named.
        path: PathBuf,
    },
    /// The socket belongs to another user, or another user listens on it.
    #[error("no permission to use the socket {}, which is user {owner}'s", .path.display())]
    Denied {
        /// Path of the socket.
        path: PathBuf,
        /// The other user's ID.
        owner: u32,
    },
    /// The run that created the socket has ended.
    #[error("nobody listens at {}: the run that made it is over", .path.display())]
    Dead {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Some other program listens on the socket.
    #[error("{} is not a control socket of vector14: {what}", .path.display())]
    NotVector14 {
        /// Path of the socket.
        path: PathBuf,
        /// What was received instead of vector14's first line.
        what: String,
    },
    /// The VM speaks another version of the control protocol.
    #[error("{} speaks version {theirs} of the control protocol; this client speaks version {PROTOCOL}", .path.display())]
    OtherProtocol {
        /// Path of the socket.
        path: PathBuf,
        /// The VM's protocol version.
        theirs: u64,
    },
    /// The VM sent a result that this version does not know.
    #[error("can't parse the VM's answer: {what}")]
    UnknownResult {
        /// What is wrong with the result.
        what: String,
    },
    /// The VM ended before it answered.
    #[error("the VM has ended")]
    Ended,
    /// The VM refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host returned an error.
    #[error("{}: {source}", .path.display())]
    Host {
        /// Path of the socket.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

impl ClientError {
    /// What to do about the error, if anything can be done.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoSocket { .. } | Self::Dead { .. } => {
                Some("a VM has one while it runs with `vector14 run CONFIG --control PATH`".to_owned())
            }
            Self::Denied { .. } => Some("only the user that runs the VM can control it".to_owned()),
            Self::OtherProtocol { .. } | Self::UnknownResult { .. } => {
                Some("use the vector14 that runs the VM".to_owned())
            }
            Self::Refused(refusal) => refusal.help.clone(),
            Self::NotASocket { .. } | Self::NotVector14 { .. } | Self::Ended | Self::Host { .. } => None,
        }
    }
}

/// A connection to a VM.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the VM whose socket is at `path`.
    ///
    /// # Errors
    /// [`ClientError`]: there is no VM, or it can't be used.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| refused(path, error))?;
        let mut client = Self { reader: BufReader::new(stream), path: path.to_owned() };
        if let Some(user) = client.host(peer::stranger)? {
            return Err(ClientError::Denied { path: path.to_owned(), owner: user.as_raw() });
        }
        client.host(|stream| stream.set_read_timeout(Some(PATIENCE)))?;
        client.check_greeting()?;
        client.host(|stream| stream.set_read_timeout(None))?;
        Ok(client)
    }

    /// Sends `command` to the VM, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the VM refused; any other variant if there is no answer.
    pub fn request(&mut self, command: &Command) -> Result<Response, ClientError> {
        let line = serde_json::to_string(command).map_err(|error| self.failed(error.into()))? + "\n";
        let sent = self.reader.get_ref().write_all(line.as_bytes());
        match sent.map_err(|error| error.kind()) {
            // The server may have sent the reason.
            Ok(()) | Err(io::ErrorKind::BrokenPipe) => self.next_answer(command),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    /// Waits for the next answer to `command`, which may have several.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn next_answer(&mut self, command: &Command) -> Result<Response, ClientError> {
        let mut answer = self.read()?;
        if let Some(error) = answer.get_mut("error") {
            let refusal = serde_json::from_value(error.take());
            return Err(refusal.map_or_else(|error| self.unknown(error.to_string()), ClientError::Refused));
        }
        let is_object = answer["result"].is_object();
        let result = answer.get_mut("result").map(|result| serde_json::from_value(result.take()));
        match result {
            Some(Ok(response)) if is_object && command.has(&response) => Ok(response),
            Some(Ok(_)) => Err(ClientError::UnknownResult { what: format!("not a result of {command:?}") }),
            Some(Err(error)) => Err(ClientError::UnknownResult { what: error.to_string() }),
            None => Err(self.unknown(format!("an answer without result or error: {answer}"))),
        }
    }

    fn check_greeting(&mut self) -> Result<(), ClientError> {
        let greeting = match self.read() {
            Err(ClientError::Ended) => return Err(self.unknown("it closes the connection".to_owned())),
            Err(ClientError::Host { source, .. })
                if matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                return Err(self.unknown(format!("it sent nothing for {PATIENCE:?}")));
            }
            other => other?,
        };
        match greeting["vector14"]["protocol"].as_u64() {
            Some(theirs) if theirs == u64::from(PROTOCOL) => Ok(()),
            Some(theirs) => Err(ClientError::OtherProtocol { path: self.path.clone(), theirs }),
            None => match serde_json::from_value::<Refusal>(greeting["error"].clone()) {
                Ok(refusal) => Err(refusal.into()),
                Err(_) => Err(self.unknown("it sent something else".to_owned())),
            },
        }
    }

    fn read(&mut self) -> Result<Value, ClientError> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(ANSWER_MAX).read_until(b'\n', &mut line);
        match read.map_err(|error| error.kind()) {
            Ok(0) | Err(io::ErrorKind::ConnectionReset) => Err(ClientError::Ended),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| self.unknown(format!("not JSON: {error}"))),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn unknown(&self, what: String) -> ClientError {
        ClientError::NotVector14 { path: self.path.clone(), what }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Host { path: self.path.clone(), source }
    }

    fn host<T>(&self, call: impl FnOnce(&UnixStream) -> io::Result<T>) -> Result<T, ClientError> {
        call(self.reader.get_ref()).map_err(|error| self.failed(error))
    }
}

/// Why a connection to the socket at `path` failed.
fn refused(path: &Path, error: io::Error) -> ClientError {
    let path = path.to_owned();
    let found = fs::metadata(&path);
    match (error.kind(), found) {
        (io::ErrorKind::NotFound, _) => ClientError::NoSocket { path },
        (_, Ok(found)) if !found.file_type().is_socket() => ClientError::NotASocket { path },
        (io::ErrorKind::ConnectionRefused, _) => ClientError::Dead { path },
        (io::ErrorKind::PermissionDenied, Ok(found)) => ClientError::Denied { path, owner: found.uid() },
        _ => ClientError::Host { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn told(path: &Path) -> String {
        Client::connect(path).expect_err("there is no VM").to_string()
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(told(&path).contains("no socket at"));
        fs::write(&path, "").unwrap();
        assert!(told(&path).contains("is not a socket"));
        fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(told(&path).contains("the run that made it is over"));
    }

    #[test]
    fn others_that_listen_are_told_apart() {
        for (says, words) in [
            ("", "it closes the connection"),
            ("SSH-2.0-x\r\n", "not JSON"),
            ("{}\n", "it sent something else"),
            ("{\"vector14\":{\"protocol\":99}}\n", "version 99"),
            ("{\"error\":{\"message\":\"full\",\"help\":null}}\n", "full"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            let told = std::thread::scope(|scope| {
                scope.spawn(|| listener.accept().unwrap().0.write_all(says.as_bytes()).unwrap());
                told(&path)
            });
            assert!(told.contains(words), "{says:?}: {told}");
        }
    }
}
