//! Why a command ends badly, and its exit status.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use vector14::config::{ConfigError, Problem};
use vector14::ctl::BindError;
use vector14::library::LibraryError;
use vector14_hooks::TraceError;

use super::hook::ProjectError;

/// Why a command ends badly.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(super) enum Failure {
    /// There is no config.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    /// A hook can't be loaded.
    #[error("{0}")]
    #[diagnostic(help("{}", .0.help()))]
    Library(LibraryError),
    /// A hook's project can't be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Project(#[from] ProjectError),
    /// There is no VM, or it could not go on. A guest that ends badly is not a failure: its summary tells.
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
    /// The file for the summary can't be made. The guest did not run.
    #[error("--summary {}: {error}", .path.display())]
    #[diagnostic(help("the guest was not started; name a file that can be written"))]
    SummaryFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The summary can't be written. The guest did run.
    #[error("--summary {}: {error}: the summary is lost or incomplete", .path.display())]
    SummaryLost {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A trace can't be read on.
    #[error("{trace}: {error}")]
    Trace {
        /// The file, as it was named.
        trace: String,
        /// What is wrong with it.
        error: TraceFailure,
    },
    /// There is nobody to be asked.
    #[error("no hook is named: use --hook NAME, or --config FILE with a [[hook]] in it")]
    NoHooks,
    /// There is no control socket. The guest did not run.
    #[error("{error}")]
    Bind {
        /// Why not.
        error: BindError,
        /// What to do.
        #[help]
        help: Option<&'static str>,
    },
    /// A VM that is controlled says no, or is not there.
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
    /// A VM that is controlled says what no VM of this version says.
    #[error("the VM's answer is not understood: {error}")]
    #[diagnostic(help("use the vector14 that runs the VM"))]
    Answer {
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The results can't be written to stdout.
    #[error("standard output: {error}")]
    Stdout {
        /// Why not.
        error: io::Error,
    },
}

/// Why a trace can't be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceFailure {
    /// It can't be opened.
    #[error("can't be opened: {0}")]
    Open(#[source] io::Error),
    /// A line is wrong.
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
            | Self::NoHooks => Self::USAGE,
            Self::SummaryLost { .. } | Self::Stdout { .. } | Self::Answer { .. } => Self::HOST,
            Self::Vm { status, .. } | Self::Control { status, .. } => *status,
        }
    }
}
