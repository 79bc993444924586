//! Output that no caller waits for: a bounded buffer, and a thread that writes it out.
//!
//! A write(2) takes as long as the reader of the pipe, the terminal or the file system wants, so vCPUs and the main
//! thread leave their bytes here instead. Used for the guest's console and for logs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use crate::sys::lock;

/// Capacity of an outlet, in bytes.
const CAPACITY: usize = 128 << 10;
/// Number of bytes from which on an outlet counts as full. The rest is for vCPUs that do not know it yet: each of 8
/// vCPUs can print a page with one instruction.
const FULL: usize = CAPACITY / 4;
/// Number of bytes at which a full outlet has room again.
const ROOM: usize = FULL / 2;
/// Bytes per write.
const PIECE: usize = 4096;

/// Destination of the output.
pub type Sink = Box<dyn Write + Send>;

/// Buffered output, written by a thread. Clones share one outlet; the thread ends when the last clone has been
/// dropped and everything is written.
#[derive(Clone)]
pub struct Outlet(Arc<Handle>);

struct Handle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Signalled when bytes come in, when bytes are written, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<u8>,
    /// Number of bytes being written.
    in_flight: usize,
    full: bool,
    closed: bool,
    on_level: Option<OnLevel>,
}

/// Called when the outlet becomes full or has room again. It must not use the outlet.
type OnLevel = Box<dyn Fn(Level) + Send>;

/// Fill level of an outlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Full: no more output should come.
    Full,
    /// Room: more output may come.
    Room,
}

impl Outlet {
    /// Starts the thread that writes to `sink`. Failures are reported under `name`. After a failure, output is
    /// dropped: a guest does not stop because its console can't be written.
    ///
    /// # Errors
    /// The host refuses a thread.
    pub fn new(name: &'static str, sink: Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || theirs.write_out(name, sink))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// An outlet to a descriptor of this process, such as standard output, blocking or not.
    ///
    /// # Errors
    /// The host refuses a thread or a descriptor.
    pub fn to(name: &'static str, descriptor: impl AsFd) -> io::Result<Self> {
        let own = descriptor.as_fd().try_clone_to_owned()?;
        Self::new(name, Box::new(Descriptor(own.into())))
    }

    /// Queues `bytes` for writing, all of them or none. Returns whether there was room.
    pub fn push(&self, bytes: &[u8]) -> bool {
        let Shared { state, changed } = &*self.0.0;
        let mut state = lock(state);
        if state.waiting.len() + bytes.len() > CAPACITY {
            return false;
        }
        state.waiting.extend(bytes);
        state.note_level();
        changed.notify_all();
        true
    }

    /// Waits at most `limit` until everything is written. Returns how many bytes are left.
    pub fn drain(&self, limit: Duration) -> usize {
        let Shared { state, changed } = &*self.0.0;
        let waited = changed.wait_timeout_while(lock(state), limit, |state| state.left() > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.left()
    }

    /// Calls `on_level` now if the outlet is full, and from here on at every change, in order.
    pub(crate) fn watch_level(&self, on_level: impl Fn(Level) + Send + 'static) {
        let mut state = lock(&self.0.0.state);
        if state.full {
            on_level(Level::Full);
        }
        state.on_level = Some(Box::new(on_level));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_all();
    }
}

impl State {
    fn left(&self) -> usize {
        self.waiting.len() + self.in_flight
    }

    fn note_level(&mut self) {
        let full = self.waiting.len() >= if self.full { ROOM } else { FULL };
        if full != self.full {
            self.full = full;
            let level = if full { Level::Full } else { Level::Room };
            self.on_level.iter().for_each(|on_level| on_level(level));
        }
    }
}

impl Shared {
    /// Runs on the thread that writes.
    fn write_out(&self, name: &str, mut sink: Sink) {
        let mut broken = false;
        let mut piece = Vec::with_capacity(PIECE);
        while self.take(&mut piece) {
            if broken {
                continue;
            }
            if let Err(error) = sink.write_all(&piece).and_then(|()| sink.flush()) {
                broken = true;
                tracing::warn!("{name} can't be written ({error}): further output is dropped");
            }
        }
    }

    /// Marks the previous piece as written, waits for bytes and moves some to `piece`. Returns false at the end.
    fn take(&self, piece: &mut Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        state.in_flight = 0;
        self.changed.notify_all();
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        piece.clear();
        let count = state.waiting.len().min(PIECE);
        piece.extend(state.waiting.drain(..count));
        state.in_flight = count;
        state.note_level();
        count > 0
    }
}

/// A descriptor, written without a buffer or a lock of this process.
struct Descriptor(File);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                // Somebody who shares the descriptor has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    retry_on_intr(|| poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None))?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Takes a write when the test lets it.
    struct Gated {
        turns: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Outlet, Sender<()>, Receiver<Vec<u8>>) {
        let ((turn, turns), (written, pieces)) = (channel(), channel());
        (Outlet::new("the test's output", Box::new(Gated { turns, written })).unwrap(), turn, pieces)
    }

    #[test]
    fn a_reader_that_stands_still_holds_up_nobody_and_loses_nothing() {
        let (outlet, turn, pieces) = gated();
        let levels = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&levels);
        outlet.watch_level(move |level| seen.lock().unwrap().push(level));
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(FULL + 2 * PIECE).collect();
        for part in text.chunks(100) {
            assert!(outlet.push(part));
        }
        assert_eq!(*levels.lock().unwrap(), [Level::Full]);
        assert_eq!(outlet.drain(Duration::ZERO), text.len());
        for _ in 0..=text.len() {
            turn.send(()).unwrap();
        }
        assert_eq!(outlet.drain(LONG), 0);
        assert_eq!(*levels.lock().unwrap(), [Level::Full, Level::Room]);
        assert_eq!(pieces.try_iter().flatten().collect::<Vec<_>>(), text);
    }

    #[test]
    fn what_there_is_no_room_for_is_refused_whole() {
        let (outlet, turn, _pieces) = gated();
        assert!(outlet.push(&[0; CAPACITY]));
        while outlet.push(&[0; PIECE]) {}
        let left = outlet.drain(Duration::ZERO);
        assert!(left <= CAPACITY + PIECE, "{left}");
        drop(turn);
    }

    #[test]
    fn output_that_fails_is_dropped() {
        let (outlet, turn, _pieces) = gated();
        drop(turn);
        for _ in 0..100 {
            assert!(outlet.push(b"hello"));
        }
        assert_eq!(outlet.drain(LONG), 0);
    }

    #[test]
    fn the_last_clone_leaves_nothing_unwritten() {
        let (outlet, turn, pieces) = gated();
        assert!(outlet.clone().push(b"hello"));
        drop(outlet);
        turn.send(()).unwrap();
        assert_eq!(pieces.recv_timeout(LONG).unwrap(), b"hello");
        assert!(pieces.recv_timeout(LONG).is_err(), "the thread has ended");
    }
}
