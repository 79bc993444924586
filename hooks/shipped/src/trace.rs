//! `trace`: one line a fault, to the console or to a file.
//!
//! On the fault's path a fault is copied into a queue and nothing else; a thread of its own turns the queue into lines
//! and writes them. The guest waits only when it faults faster than lines can be written for a while, and a line is
//! lost only when nothing can be written at all, or when a file has reached its `limit`. What is lost is counted, and said at the
//! end.
//!
//! - `trace/queue.rs`: from the vCPUs to the writer
//! - `trace/line.rs`: what a line looks like
//! - `trace/output.rs`: where lines go
//! - `trace/writer.rs`: the thread between
//! - `trace/reader.rs`: lines, read back

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
use writer::{Tally, Writer};

pub(crate) const TYPE: HookType = HookType {
    name: "trace",
    summary: "writes one line a fault, to the console or a file",
    options: &[
        OptionDoc {
            name: "format",
            value: "\"text\" | \"json\"",
            default: Some("\"text\""),
            help: "lines for people, or an object a line for programs",
        },
        OptionDoc {
            name: "file",
            value: "path",
            default: Some("the console (stderr)"),
            help: "file or fifo that gets the lines; an existing file is emptied",
        },
        OptionDoc {
            name: "limit",
            value: "\"SIZE\" | \"none\"",
            default: Some("\"4G\""),
            help: "size that a file does not exceed: lines beyond it are counted, not written; fifos and devices have none",
        },
    ],
    check: |options| Settings::parse(options)?.target.check(),
    create: |options| Ok(Box::new(Trace::new(options)?)),
};

/// How long to go on hoping when no line gets written any more.
#[derive(Clone, Copy)]
struct Patience {
    /// Of a vCPU whose fault finds the queue full. The guest stands still meanwhile.
    full: Duration,
    /// At the end, when lines are still to be written.
    end: Duration,
}

const PATIENCE: Patience = Patience { full: Duration::from_secs(1), end: Duration::from_secs(5) };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    format: Format,
    file: Option<PathBuf>,
    limit: Option<String>,
}

/// The same, checked.
struct Settings {
    format: Format,
    target: Target,
    /// Bytes; `None` for no limit.
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
        let writer = Writer::start(format, target.open()?, limit, patience)
            .map_err(|error| OptionsError { key: None, message: format!("no thread to write the trace: {error}") })?;
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

/// What to tell about lines that did not get written.
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
