//! Loads a library in another process first, and asks its hook about options. The dynamic linker trusts what it loads: a damaged
//! library can crash or hang the process.
//!
//! The other process runs the same program. Only a program that calls [`serve_trials`] at the start of `main` tries its
//! libraries; any other loads them without a trial.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use vector14_hook::Options;

use super::{Reason, open};

/// Argument that tells a process to try the library on its standard input.
const ARGUMENT: &str = "--try-hook-library";
/// Time within which a library must load.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two checks of the process.
const BEAT: Duration = Duration::from_millis(1);

/// Whether this program serves trials.
static SERVED: AtomicBool = AtomicBool::new(false);

/// If this process was started for a trial, loads the library on standard input and exits. Otherwise returns, and from
/// then on every library is tried in such a process before it is loaded. Call this at the start of `main`, before any
/// thread is started.
pub fn serve_trials() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) || arguments.next().is_some() {
        SERVED.store(true, Ordering::Relaxed);
        return;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Otherwise a crash would leave a core file.
    let _ = setrlimit(Resource::Core, none);
    // An error recurs, and is reported, when the library is loaded for good. The hook is asked about options because
    // what its descriptor points to may be damaged too.
    let library = io::stdin().as_fd().try_clone_to_owned();
    let _ = library.map(|library| open(library.into()).map(|hook| hook.check(&Options::default())));
    // Runs the library's destructors.
    std::process::exit(0);
}

/// Loads `library` in another process.
///
/// # Errors
/// [`Reason::EndsProcess`], [`Reason::Hangs`], [`Reason::Trial`] or [`Reason::Host`].
pub(super) fn run(library: &File) -> Result<(), Reason> {
    if !SERVED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut trial = Command::new("/proc/self/exe");
    trial.arg(ARGUMENT).stdin(library.try_clone().map_err(Reason::Host)?);
    let mut child = trial.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(Reason::Trial)?;
    match wait(&mut child).map_err(Reason::Trial)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Reason::EndsProcess(describe(status))),
        None => Err(Reason::Hangs(TIMEOUT)),
    }
}

/// Waits for `child` to end; `None` if it had to be killed.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return child.wait().map(|_| None);
        }
        std::thread::sleep(BEAT);
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => {
            signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
        }
        None => status.to_string(),
    }
}
