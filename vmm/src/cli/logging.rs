//! Logs, to stderr.

use std::env;
use std::io;

use clap::ArgAction;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use vector14::display::{Colour, Style};

use super::output;

/// How much is said on stderr.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Log more: -v what happens, -vv in detail, -vvv everything (RUST_LOG does the same more finely)
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Log errors only, and show no summary but its warnings
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// Whether the end of a run is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// It is.
    Usual,
    /// Only what went wrong on the way; the rest is in the exit status and in `--summary`.
    Quiet,
}

impl Args {
    pub(super) fn loudness(&self) -> Loudness {
        if self.quiet { Loudness::Quiet } else { Loudness::Usual }
    }

    /// The level that the options ask for; `None` where there are none.
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

/// Starts logging. Options win over `RUST_LOG`.
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
        tracing::warn!("RUST_LOG={wanted}: {error}: it is left out of account");
    }
}
