//! `vector14 bench`: measures the cost of a fault on this host, compared with a bare exit, and that of asking a hook
//! alone.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueHint;
use serde::Serialize;
use vector14::bench::{self, Bench, BenchError, Dispatch, DispatchError, Ratios};
use vector14::config::EngineChoice;
use vector14::display::{Grid, Style};
use vector14::library::Library;
use vector14::outlet::Outlet;
use vector14::vm::{Surroundings, VmError};

use super::args::KvmArgs;
use super::{Failure, output, vm};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The engine to measure
    #[arg(long, default_value = "auto", value_parser = engine)]
    engine: EngineChoice,
    /// Measure only the cost of asking a hook, which needs no KVM
    #[arg(long)]
    dispatch: bool,
    /// Also measure the hook of this library, created without options
    #[arg(long, value_name = "LIBRARY", value_hint = ValueHint::FilePath)]
    hook: Option<PathBuf>,
    #[command(flatten)]
    kvm: KvmArgs,
}

/// All results.
#[derive(Serialize)]
struct Results {
    #[serde(flatten)]
    faults: Option<Bench>,
    dispatch: Dispatch,
}

/// Parses the name of an engine that intercepts faults.
fn engine(name: &str) -> Result<EngineChoice, String> {
    let engines = || EngineChoice::ALL.into_iter().filter(|engine| *engine != EngineChoice::Off);
    let names = || engines().map(EngineChoice::name).collect::<Vec<_>>().join(", ");
    engines().find(|engine| engine.name() == name).ok_or_else(|| format!("must be one of {}", names()))
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let library = args.hook.as_deref().map(Library::load).transpose().map_err(Failure::Library)?;
    let dispatch = bench::dispatch(library.as_ref()).map_err(dispatch_failure)?;
    let nowhere = Outlet::new("the console", Box::new(std::io::sink()));
    let nowhere = nowhere.map_err(|source| vm::failure(VmError::Host { what: "the console", source }))?;
    let surroundings = || Surroundings { kvm: args.kvm.path.clone(), ..Surroundings::unattended(nowhere.clone()) };
    let measure = || bench::run(args.engine, surroundings, show_progress).map_err(failure);
    let faults = if args.dispatch { None } else { Some(measure()?) };
    let results = Results { faults, dispatch };
    if args.json {
        output::print_json(&results)?;
    } else {
        output::print(&describe(&results, output::style()))?;
    }
    Ok(0)
}

fn dispatch_failure(error: DispatchError) -> Failure {
    let (message, status) = (error.to_string(), if matches!(error, DispatchError::Hook { .. }) { 2 } else { 3 });
    Failure::Vm { message, help: None, status }
}

/// Draws a progress bar on a terminal, and erases it at the end. Prints nothing elsewhere.
fn show_progress(done: u32, total: u32) {
    const WIDTH: u32 = 30;
    if !std::io::stderr().is_terminal() {
        return;
    }
    let filled = done * WIDTH / total;
    let (full, empty) = ("#".repeat(filled as usize), "-".repeat((WIDTH - filled) as usize));
    let end = if done == total { "\r\x1b[K" } else { "" };
    output::tell(&format!("\rmeasuring [{full}{empty}] {done}/{total}{end}"));
}

fn failure(error: BenchError) -> Failure {
    const CRASHED: u8 = 4;
    match error {
        BenchError::Vm(error) => vm::failure(error),
        BenchError::Guest { .. } => Failure::Vm { message: error.to_string(), help: None, status: CRASHED },
    }
}

fn describe(results: &Results, style: Style) -> String {
    let faults = results.faults.as_ref().map(|faults| describe_faults(faults, style) + "\n").unwrap_or_default();
    [faults, describe_dispatch(&results.dispatch, style)].concat()
}

fn describe_dispatch(dispatch: &Dispatch, style: Style) -> String {
    let mut grid = Grid::new(&["asking a hook", "median ns", "least ns", "over no hook"]);
    for row in &dispatch.rows {
        let [median, least, over] = [row.median_ns, row.least_ns, row.over_none_ns].map(|time| format!("{time:.1}"));
        grid.row([&row.name, &median, &least, &over]);
    }
    let scaling = dispatch.scaling;
    grid.row(["two threads over one", &format!("{:.2} times as many", scaling.median), "", ""]);
    grid.render(style)
}

fn describe_faults(bench: &Bench, style: Style) -> String {
    let Ratios { skip, resolve, reinject } = bench.ratios;
    let ratio = |name| match name {
        "skip" => format!("{skip:.2}"),
        "resolve" => format!("{resolve:.2}"),
        "reinject" => format!("{reinject:.2}"),
        _ => String::new(),
    };
    let mut grid = Grid::new(&[bench.engine, "median ns", "times exit"]);
    for row in &bench.rows {
        grid.row([row.name, &row.median_ns.to_string(), &ratio(row.name)]);
    }
    grid.render(style)
}
