//! What commands write to stdout and stderr.

use std::io::{self, Write};

use serde::Serialize;
use vector14::display::{self, Style};

use super::Failure;

/// How stdout shows things.
pub(super) fn style() -> Style {
    Style::of(&io::stdout())
}

/// Writes a result to stdout. A reader that has read enough (`| head -1`) is no failure.
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

/// Writes to stderr.
pub(super) fn tell(text: &str) {
    // Where stderr can't be written there is no one left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says on stderr why a command ends badly.
pub(super) fn complain(failure: &Failure) {
    tell(&display::diagnostic(failure, Style::of(&io::stderr())));
}
