//! `vector14 bench`: what a fault costs on this host, beside a bare exit.

use std::io::IsTerminal;

use vector14::bench::{self, Bench, BenchError, Ratios};
use vector14::config::EngineChoice;
use vector14::display::{Grid, Style};
use vector14::vm::Surroundings;

use super::args::KvmArgs;
use super::{Failure, output, vm};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The engine to measure
    #[arg(long, default_value = "auto", value_parser = engine)]
    engine: EngineChoice,
    #[command(flatten)]
    kvm: KvmArgs,
}

/// An engine that faults can be measured with.
fn engine(name: &str) -> Result<EngineChoice, String> {
    let engines = || EngineChoice::ALL.into_iter().filter(|engine| *engine != EngineChoice::Off);
    let names = || engines().map(EngineChoice::name).collect::<Vec<_>>().join(", ");
    engines().find(|engine| engine.name() == name).ok_or_else(|| format!("must be one of {}", names()))
}

pub(super) fn run(args: &Args) -> Result<u8, Failure> {
    let surroundings =
        || Surroundings { kvm: args.kvm.path.clone(), ..Surroundings::unattended(Box::new(std::io::sink())) };
    let bench = bench::run(args.engine, surroundings, show_progress).map_err(failure)?;
    if args.json {
        output::print_json(&bench)?;
    } else {
        output::print(&describe(&bench, output::style()))?;
    }
    Ok(0)
}

/// A bar on a terminal, which is gone when all is done; nothing elsewhere.
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

fn describe(bench: &Bench, style: Style) -> String {
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
