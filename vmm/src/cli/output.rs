//! What commands write to stdout and stderr.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use vector14::display::{self, Style};
use vector14::outlet::Outlet;

use super::Failure;

/// How to render text for stdout.
pub(super) fn style() -> Style {
    Style::of(&io::stdout())
}

/// Writes a result to stdout. A reader that has closed the pipe (`| head -1`) is not a failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Stdout { error }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a result to stdout as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Stdout { error: error.into() })?;
    print(&display::printable_json(&(text + "\n")))
}

/// Messages and log lines for stderr, in order. While a VM runs, no thread may wait for the reader of stderr.
static STDERR: OnceLock<Option<Outlet>> = OnceLock::new();
/// How long to wait for a reader of stderr that does not read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that are queued at once.
const PIECE: usize = 4096;

fn stderr() -> Option<&'static Outlet> {
    STDERR.get_or_init(|| Outlet::to("standard error", io::stderr()).ok()).as_ref()
}

/// Writes to stderr.
pub(super) fn tell(text: &str) {
    let Some(stderr) = stderr() else {
        // If stderr can't be written, there is no one left to tell.
        return drop(io::stderr().lock().write_all(text.as_bytes()));
    };
    let mut pieces = text.as_bytes().chunks(PIECE);
    // Drops the rest if the reader does not read.
    let _ = pieces.all(|piece| stderr.push(piece) || stderr.drain(PATIENCE) == 0 && stderr.push(piece));
}

/// Flushes what was written to stderr, if somebody reads it.
pub(super) fn finish() {
    let dropped = DROPPED.load(Ordering::Relaxed);
    if dropped > 0 {
        tell(&format!("vector14: {dropped} log messages were dropped: standard error was not read fast enough\n"));
    }
    if let Some(Some(stderr)) = STDERR.get() {
        stderr.drain(PATIENCE);
    }
}

/// Number of log messages dropped for lack of room.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Where log messages go. They are dropped where there is no room: neither a vCPU's thread nor the main thread may
/// wait.
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if !stderr().is_some_and(|stderr| stderr.push(message)) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints on stderr why a command failed.
pub(super) fn complain(failure: &Failure) {
    tell(&display::diagnostic(failure, Style::of(&io::stderr())));
}
