//! Why a command fails, and its exit status.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use vector14::config::{ConfigError, Problem};
use vector14::ctl::BindError;
use vector14::library::LibraryError;
use vector14_hooks::TraceError;

use super::hook::ProjectError;

/// Why a command fails.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(super) enum Failure {
    /// The config can't be loaded.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    /// A hook library can't be loaded.
    #[error("{0}")]
    #[diagnostic(help("{}", .0.help()))]
    Library(LibraryError),
    /// The project for a new hook can't be created.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Project(#[from] ProjectError),
    /// The VM can't be created, or could not go on. A guest that ends badly is not a failure: the summary reports it.
    #[error("{message}")]
    Vm {
        /// What failed.
        message: String,
        /// What to do.
        #[help]
        help: Option<String>,
        /// The exit status.
        status: u8,
    },
    /// The summary's file can't be created. The guest was not run.
    #[error("--summary {}: {error}", .path.display())]
    #[diagnostic(help("the guest was not started; name a file that can be written"))]
    SummaryFile {
        /// Path of the file.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
    /// The summary can't be written. The guest was run.
    #[error("--summary {}: {error}: the summary is lost or incomplete", .path.display())]
    SummaryLost {
        /// Path of the file.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
    /// A trace can't be read to its end.
    #[error("{trace}: {error}")]
    Trace {
        /// The trace's file, as the user named it.
        trace: String,
        /// What is wrong with the trace.
        error: TraceFailure,
    },
    /// No hook is named.
    #[error("no hook is named: use --hook NAME, or --config FILE with a [[hook]] in it")]
    NoHooks,
    /// The control socket can't be created. The guest was not run.
    #[error("{error}")]
    Bind {
        /// Why it can't be created.
        error: BindError,
        /// What to do.
        #[help]
        help: Option<&'static str>,
    },
    /// The VM refused a control request, or can't be reached.
    #[error("{message}")]
    Control {
        /// What failed.
        message: String,
        /// What to do.
        #[help]
        help: Option<String>,
        /// The exit status.
        status: u8,
    },
    /// An option of a hook is not `KEY=VALUE`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Option(Problem),
    /// The current directory was removed, and a new hook's relative paths would start there.
    #[error("the current directory: {0}")]
    #[diagnostic(help("relative paths of a new hook start there: change to a directory that exists"))]
    CurrentDirectory(#[source] io::Error),
    /// The manual pages can't be written.
    #[error("{}: the manual pages can't be written: {error}", .folder.display())]
    ManPages {
        /// The folder to write them to.
        folder: PathBuf,
        /// The host's error.
        error: io::Error,
    },
    /// The results can't be written to stdout.
    #[error("standard output: {error}")]
    Stdout {
        /// The host's error.
        error: io::Error,
    },
}

/// Why a trace can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceFailure {
    /// The trace can't be opened.
    #[error("can't be opened: {0}")]
    Open(#[source] io::Error),
    /// A line is malformed.
    #[error(transparent)]
    Line(#[from] TraceError),
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let help = error.help();
        Self::Bind { error, help }
    }
}

impl Failure {
    const USAGE: u8 = 2;
    const HOST: u8 = 3;

    /// The exit status of the `vector14` command for this failure.
    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Library(_)
            | Self::Project(_)
            | Self::SummaryFile { .. }
            | Self::Bind { .. }
            | Self::Option(_)
            | Self::Trace { .. }
            | Self::CurrentDirectory(_)
            | Self::NoHooks => Self::USAGE,
            Self::SummaryLost { .. } | Self::ManPages { .. } | Self::Stdout { .. } => Self::HOST,
            Self::Vm { status, .. } | Self::Control { status, .. } => *status,
        }
    }
}
