//! `vector14 replay`: runs hooks on the faults of a trace that the hook `trace` wrote in JSON. There is no guest, so
//! their verdicts have no effect. Only one fault is in memory at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde_json::json;
use vector14::config::{Config, NamedHook};
use vector14::display::{self, Grid, Style, printable_json};
use vector14::replay::{Answer, Replay};
use vector14_hook::{Fault, Verdict};
use vector14_hooks::{HOOKS, TraceReader};

use super::failure::TraceFailure;
use super::{Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The trace, as written by the hook `trace` with format = "json"; - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// Ask the hooks of this config file first
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Ask this hook, given by name or by the path of its library; several are asked in the order given
    #[arg(long = "hook", value_name = "NAME|PATH")]
    hooks: Vec<String>,
    /// Set an option of the hook; with several hooks, HOOK.KEY=VALUE. VALUE is parsed as for `run --set`
    #[arg(long = "option", value_name = "KEY=VALUE", requires = "hooks")]
    options: Vec<String>,
    /// Print JSON, one object per fault
    #[arg(long)]
    json: bool,
}

/// Rows of a table on a terminal; then a new table begins, with headings.
const ROWS: usize = 500;
const COLUMNS: [&str; 7] = ["fault", "vcpu", "address", "access", "rip", "verdict", "hook"];

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let mut replay = Replay::new(hooks(args)?);
    let trace = args.trace.display().to_string();
    let failed = |error| Failure::Trace { trace: trace.clone(), error };
    let input = open(&args.trace).map_err(|error| failed(TraceFailure::Open(error)))?;
    let mut printer = Printer::new(args.json);
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut bad = None;
    for fault in TraceReader::new(input) {
        let fault = match fault {
            Ok(fault) => fault,
            Err(error) => {
                bad = Some(failed(error.into()));
                break;
            }
        };
        let answer = replay.ask(&fault);
        *counts.entry(answer.verdict.name()).or_default() += 1;
        if printer.print(&fault, &answer)? == Reader::Gone {
            break;
        }
    }
    printer.flush()?;
    let style = Style::of(&io::stderr());
    output::tell(&display::reports(&replay.end(), style));
    output::tell(&conclusion(&counts));
    bad.map_or(Ok(0), Err)
}

/// The last line, such as `12 faults: resolve 10, skip 2`.
fn conclusion(counts: &BTreeMap<&str, u64>) -> String {
    let total: u64 = counts.values().sum();
    let each: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    format!("vector14: {total} faults{}{}\n", if each.is_empty() { "" } else { ": " }, each.join(", "))
}

/// The hooks of the config file, followed by those of the command line.
fn hooks(args: &Args) -> Result<Vec<NamedHook>, Failure> {
    let mut hooks = Vec::new();
    if let Some(path) = &args.config {
        hooks.extend(Config::load(path, &[], HOOKS)?.create_hooks(HOOKS)?);
    }
    if !args.hooks.is_empty() {
        hooks.extend(named(&args.hooks, &args.options)?.create_hooks(HOOKS)?);
    }
    if hooks.is_empty() { Err(Failure::NoHooks) } else { Ok(hooks) }
}

/// The hooks of the command line, as a config that has nothing else.
fn named(names: &[String], options: &[String]) -> Result<Config, Failure> {
    let mut text = "[boot]\nkernel = \"tiny\"\n".to_owned();
    for name in names {
        let key = if name.contains('/') { "path" } else { "name" };
        text += format!("[[hook]]\n{key} = {}\n", toml::Value::String(name.clone())).as_str();
    }
    let set = |option: &String| match names {
        [only] if !option.starts_with(&format!("{only}.")) => format!("hook.0.{option}"),
        _ => format!("hook.{option}"),
    };
    let sets: Vec<_> = options.iter().map(set).collect();
    Ok(Config::parse("--hook", text, Path::new(""), &sets, HOOKS)?)
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    Ok(Box::new(BufReader::new(File::open(path)?)))
}

/// Whether anybody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

/// Prints answers as they arrive.
struct Printer {
    out: BufWriter<io::StdoutLock<'static>>,
    form: Form,
    grid: Grid,
}

enum Form {
    Json,
    Table(Style),
}

impl Printer {
    fn new(json: bool) -> Self {
        let form = if json { Form::Json } else { Form::Table(output::style()) };
        Self { out: BufWriter::new(io::stdout().lock()), form, grid: Grid::new(&COLUMNS) }
    }

    fn print(&mut self, fault: &Fault, answer: &Answer) -> Result<Reader, Failure> {
        let printed = match self.form {
            Form::Json => writeln!(self.out, "{}", printable_json(&as_json(fault, answer).to_string())),
            Form::Table(_) => {
                self.grid.rows.push(row(fault, answer));
                if self.grid.rows.len() < ROWS { Ok(()) } else { self.print_grid() }
            }
        };
        ignoring_gone(printed)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let printed = self.print_grid().and_then(|()| self.out.flush());
        ignoring_gone(printed).map(|_| ())
    }

    fn print_grid(&mut self) -> io::Result<()> {
        let Form::Table(style) = self.form else { return Ok(()) };
        if self.grid.rows.is_empty() {
            return Ok(());
        }
        self.out.write_all(self.grid.render(style).as_bytes())?;
        self.grid.rows.clear();
        if style == Style::Plain {
            // Scripts want the headings only once.
            self.grid.columns.clear();
        }
        Ok(())
    }
}

fn ignoring_gone(printed: io::Result<()>) -> Result<Reader, Failure> {
    match printed {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Stdout { error }),
    }
}

fn row(fault: &Fault, answer: &Answer) -> Vec<String> {
    let hook = answer.hook.as_deref().unwrap_or_default();
    let hook = answer.failure.as_ref().map_or(hook.to_owned(), |why| format!("{hook} {why}"));
    vec![
        fault.sequence.to_string(),
        fault.vcpu.to_string(),
        fault.address.to_string(),
        fault.error_code.to_string(),
        fault.rip.to_string(),
        words(&answer.verdict),
        hook,
    ]
}

fn as_json(fault: &Fault, answer: &Answer) -> serde_json::Value {
    let detail = match &answer.verdict {
        Verdict::Pass | Verdict::Reinject | Verdict::Resolve | Verdict::Skip => serde_json::Value::Null,
        Verdict::ReinjectAs { address, error_code } => {
            json!({"address": address.to_string(), "error_code": format!("{:#x}", error_code.bits())})
        }
        Verdict::Raise(exception) => json!({"vector": exception.vector, "error_code": exception.error_code}),
        Verdict::Stop(reason) => json!({"reason": reason}),
    };
    json!({
        "seq": fault.sequence,
        "vcpu": fault.vcpu,
        "address": fault.address.to_string(),
        "rip": fault.rip.to_string(),
        "verdict": answer.verdict.name(),
        "detail": detail,
        "hook": answer.hook,
        "failure": answer.failure,
    })
}

/// A verdict's name with its operands, for people.
fn words(verdict: &Verdict) -> String {
    let detail = match verdict {
        Verdict::Pass | Verdict::Reinject | Verdict::Resolve | Verdict::Skip => String::new(),
        Verdict::ReinjectAs { address, error_code } => format!(" {address} ({error_code})"),
        Verdict::Raise(exception) => {
            let code = exception.error_code.map(|code| format!(" ({code:#x})")).unwrap_or_default();
            format!(" {}{code}", exception.vector)
        }
        Verdict::Stop(reason) => format!(": {reason}"),
    };
    format!("{}{detail}", verdict.name())
}
