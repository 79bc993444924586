//! The thread that formats queued faults and writes them as lines.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vector14_hook::Fault;

use super::line::Format;
use super::output::Output;
use super::queue::FaultQueue;

/// How long to wait while the writer makes no progress.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// The wait of a vCPU whose fault finds the queue full. The vCPU is stopped meanwhile.
    pub(super) full: Duration,
    /// The wait at the end for lines that are not written yet.
    pub(super) end: Duration,
}

/// Capacity of the queue in faults: 1.5 MB. At a million faults per second, three times what arrives during one
/// [`NAP`].
const QUEUE_CAPACITY: usize = 16 * 1024;
/// Interval at which the thread polls for faults. It polls because waking it would cost a system call per fault.
const NAP: Duration = Duration::from_millis(5);
/// Approximate bytes per write. Small enough that a slow reader still counts as progress.
const PIECE: usize = 16 * 1024;

/// A handle to the writing thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    patience: Duration,
}

/// The progress of a trace.
pub(super) struct Tally {
    /// Faults recorded.
    pub(super) faults: u64,
    /// Lines written completely.
    pub(super) written: u64,
    /// Lines dropped because the file had reached its limit.
    pub(super) beyond: u64,
    /// The first write error.
    pub(super) error: Option<String>,
}

struct Shared {
    queue: FaultQueue,
    ending: AtomicBool,
    written: AtomicU64,
    beyond: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Writer {
    /// Starts the thread, which writes at most `limit` bytes to a regular file.
    pub(super) fn start(format: Format, output: Output, limit: Option<u64>, patience: Patience) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(patience.full));
        let theirs = Arc::clone(&shared);
        let room = limit.filter(|_| output.grows()).unwrap_or(u64::MAX);
        let run = move || {
            if let Err(error) = write_lines(&theirs, format, output, room) {
                theirs.note(&error);
            }
        };
        let thread = thread::Builder::new().name("trace".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), patience: patience.end })
    }

    /// Queues one fault.
    pub(super) fn record(&self, fault: &Fault) {
        self.shared.queue.push(*fault);
    }

    /// Writes everything that can be written, and ends the thread. A thread that makes no progress is abandoned: it
    /// hangs in a system call, and ends with the process.
    pub(super) fn finish(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.shared.ending.store(true, Ordering::Release);
        let mut progress = self.shared.progress();
        let mut since = Instant::now();
        while !thread.is_finished() {
            if since.elapsed() >= self.patience {
                return;
            }
            thread.thread().unpark();
            thread::sleep(Duration::from_millis(1));
            if progress != self.shared.progress() {
                (progress, since) = (self.shared.progress(), Instant::now());
            }
        }
        if thread.join().is_err() {
            self.shared.note(&io::Error::other("the thread that writes has panicked"));
        }
    }

    /// The current progress; final after [`Writer::finish`].
    pub(super) fn tally(&self) -> Tally {
        let [written, beyond] = [&self.shared.written, &self.shared.beyond].map(|count| count.load(Ordering::Relaxed));
        Tally { faults: self.shared.queue.total(), written, beyond, error: self.shared.first_error().clone() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn new(patience: Duration) -> Self {
        Self {
            queue: FaultQueue::new(QUEUE_CAPACITY, patience),
            ending: AtomicBool::new(false),
            written: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
            error: Mutex::new(None),
        }
    }

    fn progress(&self) -> (u64, u64) {
        (self.queue.taken(), self.written.load(Ordering::Relaxed))
    }

    fn note(&self, error: &io::Error) {
        self.first_error().get_or_insert_with(|| error.to_string());
    }

    fn first_error(&self) -> MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's loop: runs until it is told to end and the queue is empty. `room` is the maximum size of the output in
/// bytes.
fn write_lines(shared: &Shared, format: Format, output: Output, room: u64) -> io::Result<()> {
    let mut lines = Lines { out: output.into_writer()?, buffer: Vec::with_capacity(2 * PIECE), begun: false, room };
    loop {
        // Read this before the queue: then everything recorded before the end is in the queue.
        let ending = shared.ending.load(Ordering::Acquire);
        while let Some(fault) = shared.queue.pop() {
            lines.add(&fault, format, shared)?;
            if lines.buffer.len() >= PIECE {
                lines.write_out(shared);
            }
        }
        lines.write_out(shared);
        if ending {
            return Ok(());
        }
        thread::park_timeout(NAP);
    }
}

/// Buffered lines. Not a `BufWriter`, which can't tell how many lines an error has lost.
struct Lines {
    out: Box<dyn Write>,
    /// Bytes to be written: whole lines, except that the start of the first may already be written.
    buffer: Vec<u8>,
    /// Whether the start of the first line is already written.
    begun: bool,
    /// Bytes that may still be added before the limit.
    room: u64,
}

impl Lines {
    /// Adds a line if there is room for it. After the first line that does not fit, no line is added, so that the trace
    /// has no gaps.
    fn add(&mut self, fault: &Fault, format: Format, shared: &Shared) -> io::Result<()> {
        let start = self.buffer.len();
        if self.room > 0 {
            format.write_line(fault, &mut self.buffer)?;
        }
        let length = (self.buffer.len() - start) as u64;
        if length == 0 || length > self.room {
            self.room = 0;
            self.buffer.truncate(start);
            shared.beyond.fetch_add(1, Ordering::Relaxed);
        } else {
            self.room -= length;
        }
        Ok(())
    }

    /// Writes all lines. If an error occurs, the lines that could not be written are dropped, because more will follow.
    fn write_out(&mut self, shared: &Shared) {
        while !self.buffer.is_empty() {
            match self.out.write(&self.buffer) {
                Ok(0) => return self.drop_lines(&io::ErrorKind::WriteZero.into(), shared),
                Ok(bytes) => self.advance(bytes, shared),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The console may share a terminal with a standard input that was made non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                Err(error) => return self.drop_lines(&error, shared),
            }
        }
    }

    /// Removes `bytes` written bytes from the buffer and counts their lines.
    fn advance(&mut self, bytes: usize, shared: &Shared) {
        let written = &self.buffer[..bytes];
        let lines = written.iter().filter(|&&byte| byte == b'\n').count();
        self.begun = !written.ends_with(b"\n");
        self.buffer.drain(..bytes);
        shared.written.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Drops all lines of which nothing is written yet. A partly written line stays, and continues if there is room
    /// again: the file then lacks lines, but contains no broken line.
    fn drop_lines(&mut self, error: &io::Error, shared: &Shared) {
        shared.note(error);
        let end = self.buffer.iter().position(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        self.buffer.truncate(if self.begun { end } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with limited room, which accepts at most seven bytes at a time.
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let bytes = data.len().min(disk.1).min(7);
            disk.1 -= bytes;
            disk.0.extend_from_slice(&data[..bytes]);
            if bytes == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_whole_lines_and_breaks_none() {
        let shared = Shared::new(Duration::ZERO);
        let disk = Arc::new(Mutex::new((Vec::new(), 14)));
        let mut lines =
            Lines { out: Box::new(Disk(Arc::clone(&disk))), buffer: Vec::new(), begun: false, room: u64::MAX };
        lines.buffer.extend(b"one 1111\ntwo 2222\nthree 3\n");
        lines.write_out(&shared);
        lines.buffer.extend(b"four 44\n");
        lines.write_out(&shared);
        disk.lock().unwrap().1 = 1000;
        lines.buffer.extend(b"five 55\n");
        lines.write_out(&shared);
        assert_eq!(disk.lock().unwrap().0, b"one 1111\ntwo 2222\nfive 55\n");
        assert_eq!(shared.written.load(Ordering::Relaxed), 3);
        assert!(shared.first_error().as_ref().unwrap().contains("no storage space"));
    }
}
