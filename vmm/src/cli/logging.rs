//! Logging to stderr.

use std::env;
use std::io;

use clap::ArgAction;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use vector14::display::{Colour, Style};

use super::output;

/// How much is written to stderr.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Log more: -v events, -vv details, -vvv everything (RUST_LOG gives finer control)
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Log errors only, and print only the warnings of the summary
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// How much is printed about the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// The whole summary.
    Usual,
    /// Only what went wrong during the run; the rest is in the exit status and in `--summary`.
    Quiet,
}

impl Args {
    pub(super) fn loudness(&self) -> Loudness {
        if self.quiet { Loudness::Quiet } else { Loudness::Usual }
    }

    /// The level that the options ask for; `None` if no option is given.
    fn level(&self) -> Option<LevelFilter> {
        match (self.quiet, self.verbose) {
            (true, _) => Some(LevelFilter::ERROR),
            (false, 0) => None,
            (false, 1) => Some(LevelFilter::INFO),
            (false, 2) => Some(LevelFilter::DEBUG),
            (false, _) => Some(LevelFilter::TRACE),
        }
    }
}

/// Starts logging. Options override `RUST_LOG`.
pub(super) fn init(args: &Args) {
    let wanted = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let from_env = if wanted.is_empty() { None } else { Some(EnvFilter::try_new(&wanted)) };
    let (filter, refused) = match (args.level(), from_env) {
        (Some(level), _) => (EnvFilter::new(level.to_string()), None),
        (None, Some(Ok(filter))) => (filter, None),
        (None, Some(Err(error))) => (EnvFilter::new(LevelFilter::WARN.to_string()), Some(error)),
        (None, None) => (EnvFilter::new(LevelFilter::WARN.to_string()), None),
    };
    let colour = Style::of(&io::stderr()).colour() == Colour::On;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| output::Log).with_ansi(colour).init();
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG={wanted}: {error}: ignored");
    }
}
