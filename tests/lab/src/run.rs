//! A run of the lab: up to its end, or to its deadline.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::NO_VERDICT;
use crate::cache::Cache;
use crate::job::{Attendance, Job};
use crate::machine::{self, Clock, Files, QEMU};
use crate::wanted::KERNEL_IMAGE;

/// Exit status of a run that its deadline has ended.
const DEADLINE: u8 = 124;
/// A run ends after this time, unless `VECTOR14_LAB_TIMEOUT` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The lab ends a job by itself at the deadline. After this much more it is ended from outside.
const GRACE: Duration = Duration::from_secs(45);
/// The job's output.
pub(crate) const OUTPUT: &str = "output.log";
/// How much of the kernel's log is shown when the lab ends without a verdict.
const LINES_SHOWN: usize = 20;

/// Why a run can't be started or observed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Not a time.
    #[error("VECTOR14_LAB_TIMEOUT={value}: {error}; a time is written as `90s` or `20m`")]
    Timeout {
        /// What it says.
        value: String,
        /// What is wrong with it.
        error: humantime::DurationError,
    },
    /// QEMU can't be started.
    #[error("{QEMU}: {0}")]
    Qemu(io::Error),
    /// A file of the run can't be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The cache has lost a file since it was filled.
    #[error("the cache has no kernel {0} for the lab: delete its folder `unpacked` and try again")]
    NoKernel(&'static str),
}

/// What `VECTOR14_LAB_TIMEOUT` says, if it is set.
pub(crate) fn timeout() -> Result<Option<Duration>, RunError> {
    let Ok(value) = std::env::var("VECTOR14_LAB_TIMEOUT") else { return Ok(None) };
    match humantime::parse_duration(&value) {
        Ok(timeout) => Ok(Some(timeout)),
        Err(error) => Err(RunError::Timeout { value, error }),
    }
}

/// How long a job may take; a shell takes as long as its user wants.
pub(crate) fn limit(timeout: Option<Duration>, attendance: Attendance) -> Option<Duration> {
    match attendance {
        Attendance::Attended => timeout,
        Attendance::Unattended => Some(timeout.unwrap_or(DEFAULT_TIMEOUT)),
    }
}

/// A machine that is ready to run its job.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The lab's name for its kernel.
    pub(crate) kernel: &'static str,
    pub(crate) clock: Clock,
    pub(crate) initrd: PathBuf,
    pub(crate) job: Job,
    pub(crate) limit: Option<Duration>,
}

/// When the output of a job that nobody sits in front of is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    AsItComes,
    /// All of it, when the machine has ended.
    AtItsEnd,
}

/// Runs a machine, and returns its job's exit status.
pub(crate) fn run(cache: &Cache, machine: &Machine, show: Show) -> Result<u8, RunError> {
    let Machine { kernel, clock, initrd, job, limit } = machine;
    let last = Last::create(cache.root(), job.name())?;
    let version = cache.package(kernel).map_or("", |package| package.version.as_str());
    let kernel = cache.file(kernel, KERNEL_IMAGE).ok_or(RunError::NoKernel(kernel))?;
    // The path of a socket has to be short.
    let sockets = tempfile::tempdir().map_err(|error| RunError::Io { path: std::env::temp_dir(), error })?;
    let (console, status, monitor) = (last.path("console.log"), last.path("status"), sockets.path().join("monitor"));
    let files = Files { kernel: &kernel, initrd, console: &console, status: &status, monitor: &monitor };
    let mut qemu = machine::qemu(&files, job.attendance(), *clock);
    last.write("command.txt", format!("{qemu:?}\n").as_bytes())?;

    let until =
        limit.map_or("no deadline".to_owned(), |limit| format!("deadline {}", humantime::format_duration(limit)));
    eprintln!("lab: booting Linux {version} under QEMU, {until}{}", hint(job.attendance()));
    let deadline = limit.map(|limit| Instant::now() + limit + GRACE);
    match job.attendance() {
        Attendance::Attended => {
            let mut child = qemu.spawn().map_err(RunError::Qemu)?;
            wait(&mut child, deadline, &last, &monitor)?;
        }
        Attendance::Unattended => {
            let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(RunError::Qemu)?;
            let copier = child.stdout.take().map(|output| copy(output, last.path(OUTPUT), show));
            let waited = wait(&mut child, deadline, &last, &monitor);
            if let Some(copier) = copier {
                // A copy that has failed loses output, not the verdict.
                let _ = copier.join();
            }
            waited?;
        }
    }
    if show == Show::AtItsEnd {
        last.show(job.name());
    }
    match job.attendance() {
        // Whoever sits in front of it may end it in any way.
        Attendance::Attended if last.status()?.is_none() => Ok(0),
        Attendance::Attended | Attendance::Unattended => last.verdict(),
    }
}

fn hint(attendance: Attendance) -> &'static str {
    match attendance {
        Attendance::Attended => "; Ctrl-A x ends it",
        Attendance::Unattended => "",
    }
}

/// Keeps the job's output, and shows it while it comes.
fn copy(mut output: ChildStdout, path: PathBuf, show: Show) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut file = File::create(path).ok();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default();
            if show == Show::AsItComes {
                // Whoever does not read on still wants the run to end, and the file to be whole.
                let mut stdout = io::stdout();
                let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
            }
            if let Some(file) = &mut file {
                let _ = file.write_all(bytes);
            }
        }
    })
}

/// Waits for QEMU to end, and ends it at the deadline.
fn wait(qemu: &mut Child, deadline: Option<Instant>, last: &Last, monitor: &Path) -> Result<(), RunError> {
    const BEAT: Duration = Duration::from_millis(20);
    while qemu.try_wait().map_err(RunError::Qemu)?.is_none() {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            eprintln!("lab: the machine hangs: it did not end by itself at the deadline");
            let answers = machine::interrogate(monitor)
                .unwrap_or_else(|error| format!("QEMU's monitor does not answer: {error}\n").into_bytes());
            last.write("qemu.txt", &answers)?;
            last.write("status", &[DEADLINE])?;
            // It may have ended by now, as the monitor told it to.
            let _ = qemu.kill();
            qemu.wait().map_err(RunError::Qemu)?;
            return Ok(());
        }
        thread::sleep(BEAT);
    }
    Ok(())
}

/// The folder with what a run leaves behind.
struct Last {
    folder: PathBuf,
}

impl Last {
    /// An empty one, in the place of the run before.
    fn create(root: &Path, name: &str) -> Result<Self, RunError> {
        let folder = root.join(name);
        let emptied = if folder.exists() { fs::remove_dir_all(&folder) } else { Ok(()) };
        emptied.and_then(|()| fs::create_dir(&folder)).map_err(|error| RunError::Io { path: folder.clone(), error })?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), RunError> {
        fs::write(self.path(name), content).map_err(|error| RunError::Io { path: self.path(name), error })
    }

    /// Shows what the job called `name` has printed.
    fn show(&self, name: &str) {
        let output = fs::read(self.path(OUTPUT)).unwrap_or_default();
        let mut stdout = io::stdout().lock();
        // Whoever does not read it has it in the file.
        let _ = write!(stdout, "\n--- {name}\n").and_then(|()| stdout.write_all(&output)).and_then(|()| stdout.flush());
    }

    /// The job's exit status, if it has told it.
    fn status(&self) -> Result<Option<u8>, RunError> {
        let path = self.path("status");
        let status = fs::read(&path).map_err(|error| RunError::Io { path, error })?;
        Ok(status.last().copied())
    }

    /// The job's exit status, or what to say without one.
    fn verdict(&self) -> Result<u8, RunError> {
        let status = self.status()?;
        let reason = match status {
            Some(DEADLINE) => "ended at its deadline",
            Some(NO_VERDICT) | None => "ended without a verdict",
            Some(status) => return Ok(status),
        };
        let console = fs::read(self.path("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
            eprintln!("lab| {line}");
        }
        eprintln!("lab: {reason}; what it left behind is in {}", self.folder.display());
        Ok(status.unwrap_or(NO_VERDICT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_verdict_is_none_that_has_passed() {
        let root = tempfile::tempdir().unwrap();
        let last = Last::create(root.path(), "last").unwrap();
        for (written, verdict) in [(&b""[..], NO_VERDICT), (&[0], 0), (&[101], 101), (&[DEADLINE], DEADLINE)] {
            last.write("status", written).unwrap();
            assert_eq!(last.verdict().unwrap(), verdict);
        }
    }
}
