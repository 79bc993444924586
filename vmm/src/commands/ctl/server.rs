//! The connections of the control socket: one thread accepts them, and each has a thread of its own.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use vector14_hook::HookType;

use super::execute::Subject;
use super::protocol::Refusal;
use super::session::Session;
use super::socket::ControlSocket;
use super::{CLIENTS_MAX, peer};
use crate::sys::lock;
use crate::vm::VmHandle;

/// Time that clients have to receive answers in flight when the VM ends.
const GRACE: Duration = Duration::from_secs(2);
/// Delay after a failed accept (no descriptors left) before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves a VM's control socket until it is dropped.
pub struct Server {
    socket: ControlSocket,
    clients: Arc<Clients>,
}

/// The connected clients.
#[derive(Default)]
struct Clients {
    state: Mutex<Connections>,
    changed: Condvar,
}

#[derive(Default)]
struct Connections {
    closing: bool,
    open: Vec<Arc<UnixStream>>,
}

impl Server {
    /// Serves `vm` on `socket`. Clients can create hooks of `types`.
    ///
    /// # Errors
    /// The host has no descriptor or thread to spare.
    pub fn start(socket: ControlSocket, vm: VmHandle, types: &'static [HookType]) -> io::Result<Self> {
        let clients = Arc::new(Clients::default());
        let (listener, subject) = (socket.listener().try_clone()?, Arc::new(Subject::new(vm, types)));
        let accepting = Arc::clone(&clients);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => accepting.admit(Arc::new(stream), &subject),
                    Err(_) if lock(&accepting.state).closing => break,
                    Err(error) => {
                        tracing::warn!("a client of the control socket was not accepted: {error}");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        })?;
        Ok(Self { socket, clients })
    }
}

impl Drop for Server {
    /// Completes the answers in flight, and disconnects all other clients.
    fn drop(&mut self) {
        let mut state = lock(&self.clients.state);
        state.closing = true;
        // Wakes the accepting thread. This call and those below fail only on what is closed already.
        let _ = rustix::net::shutdown(self.socket.listener(), rustix::net::Shutdown::Both);
        for stream in &state.open {
            let _ = stream.shutdown(Shutdown::Read);
        }
        let waited = self.clients.changed.wait_timeout_while(state, GRACE, |state| !state.open.is_empty());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        for stream in &state.open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Clients {
    /// Starts a thread for a client, or turns the client away.
    fn admit(self: &Arc<Self>, stream: Arc<UnixStream>, subject: &Arc<Subject>) {
        if let Err(refusal) = self.enter(&stream) {
            // A new connection has room for one line, so this does not block. The client may have disconnected already.
            let _ = Session::new(&stream).and_then(|session| session.turn_away(&refusal));
            return;
        }
        let (clients, subject) = (Arc::clone(self), Arc::clone(subject));
        let leaving = Leaving { clients, stream };
        let spawned = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
            let served = Session::new(&leaving.stream).and_then(|session| session.serve(&subject));
            if let Err(error) = served {
                tracing::debug!("a client of the control socket was left: {error}");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("a client of the control socket was turned away: {error}");
        }
    }

    /// Adds a client to the list, if it is permitted and there is room.
    fn enter(&self, stream: &Arc<UnixStream>) -> Result<(), Refusal> {
        match peer::stranger(stream) {
            Ok(None) => {}
            Ok(Some(user)) => {
                return Err(Refusal::new(format!(
                    "user {} may not control this VM: it is another user's",
                    user.as_raw()
                )));
            }
            Err(error) => return Err(Refusal::new(format!("the client's user is not known: {error}"))),
        }
        let mut state = lock(&self.state);
        if state.closing {
            return Err(Refusal::new("the VM has ended"));
        }
        if state.open.len() == CLIENTS_MAX {
            return Err(Refusal::new(format!("there are {CLIENTS_MAX} clients, and there can't be more")));
        }
        state.open.push(Arc::clone(stream));
        Ok(())
    }
}

/// Removes a client from the list, however its thread ends.
struct Leaving {
    clients: Arc<Clients>,
    stream: Arc<UnixStream>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        lock(&self.clients.state).open.retain(|open| !Arc::ptr_eq(open, &self.stream));
        self.clients.changed.notify_all();
    }
}
