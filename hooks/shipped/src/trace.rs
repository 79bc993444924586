//! `trace`: writes one line per fault, to the console or to a file.
//!
//! The fault path only copies the fault into a queue. A separate thread formats and writes the lines. The guest waits
//! only if it faults faster than lines can be written for some time. A line is lost only if nothing can be written at
//! all, or if a file has reached its `limit`. Lost lines are counted and reported at the end.
//!
//! - `trace/queue.rs`: the queue from the vCPUs to the writer
//! - `trace/line.rs`: the formats of a line
//! - `trace/output.rs`: the file or console that gets the lines
//! - `trace/writer.rs`: the thread that writes lines from the queue
//! - `trace/reader.rs`: reads a JSON trace back

mod line;
mod output;
mod queue;
mod reader;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use vector14_hook::{Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, Report, Result, Verdict};

use line::Format;
use output::Target;
pub use reader::{TraceError, TraceReader};
use writer::{Patience, Tally, Writer};

pub(crate) const TYPE: HookType = HookType {
    name: "trace",
    summary: "writes one line per fault, to the console or a file",
    options: &[
        OptionDoc {
            name: "format",
            value: "\"text\" | \"json\"",
            default: Some("\"text\""),
            help: "human-readable lines, or one JSON object per line",
        },
        OptionDoc {
            name: "file",
            value: "path",
            default: Some("the console (stderr)"),
            help: "file or FIFO to write to; an existing file is truncated",
        },
        OptionDoc {
            name: "limit",
            value: "\"SIZE\" | \"none\"",
            default: Some("\"4G\""),
            help: "maximum size of the file; lines beyond it are counted, not written; FIFOs and devices have no limit",
        },
    ],
    check: |options| Settings::parse(options)?.target.check(),
    create: |options| Ok(Box::new(Trace::new(options)?)),
};

const PATIENCE: Patience = Patience { full: Duration::from_secs(1), end: Duration::from_secs(5) };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    format: Format,
    file: Option<PathBuf>,
    limit: Option<String>,
}

/// The checked options.
struct Settings {
    format: Format,
    target: Target,
    /// Maximum size of the file in bytes; `None` for no limit.
    limit: Option<u64>,
}

impl Settings {
    fn parse(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Raw { format, file, limit } = options.parse()?;
        let target = file.map_or(Target::Console, |path| Target::File(options.path(&path)));
        Ok(Self { format, target, limit: parse_limit(limit.as_deref().unwrap_or("4G"))? })
    }
}

fn parse_limit(limit: &str) -> std::result::Result<Option<u64>, OptionsError> {
    if limit == "none" {
        return Ok(None);
    }
    let wrong =
        |_| OptionsError::new("limit", format!("limit = \"{limit}\": must be a size such as \"64M\", or \"none\""));
    parse_size::Config::new().with_binary().parse_size(limit).map(Some).map_err(wrong)
}

struct Trace {
    writer: Writer,
    target: Target,
}

impl Trace {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        Self::start(Settings::parse(options)?, PATIENCE)
    }

    fn start(settings: Settings, patience: Patience) -> std::result::Result<Self, OptionsError> {
        let Settings { format, target, limit } = settings;
        let writer = Writer::start(format, target.open()?, limit, patience).map_err(|error| OptionsError {
            key: None,
            message: format!("can't start the thread that writes the trace: {error}"),
        })?;
        Ok(Self { writer, target })
    }
}

impl Hook for Trace {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Guest) -> Result {
        self.writer.record(fault);
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        self.writer.finish();
        Report { warnings: warnings(&self.target, self.writer.tally()), ..Report::default() }
    }
}

/// Warnings about lines that were not written.
fn warnings(target: &Target, Tally { faults, written, beyond, error }: Tally) -> Vec<String> {
    let mut warnings = Vec::new();
    if beyond > 0 {
        warnings.push(format!(
            "{target} reached its `limit` after {written} lines: {beyond} of {faults} lines were not written; raise it, or keep \
             faults out with `intercept.error_code`"
        ));
    }
    let lost = faults.saturating_sub(written).saturating_sub(beyond);
    if lost > 0 {
        let (cause, advice) = match error {
            Some(error) => (error, "make room there, or write the trace elsewhere with `file`"),
            None => (
                "nothing there takes what is written".to_owned(),
                "see that it is being read, or write the trace elsewhere with `file`",
            ),
        };
        warnings.push(format!("{lost} of {faults} lines could not be written to {target}: {cause}; {advice}"));
    }
    warnings
}

#[cfg(test)]
mod tests;
