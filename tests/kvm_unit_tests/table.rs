//! The table of all runs, printed when the last test has ended.

use std::io;
use std::sync::Mutex;

use vector14::config::EngineChoice;
use vector14::display::{Grid, Style};
use vector14::summary::Stop;

use crate::harness::Outcome;

/// A run of a flat.
pub struct Row([String; 7]);

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

const COLUMNS: [&str; 7] = ["test", "engine", "ended", "lines", "faults", "counted", "result"];

impl Row {
    /// The row of a run in which `found` is wrong.
    pub fn new(test: &str, engine: EngineChoice, outcome: &Outcome, found: &[String]) -> Self {
        let summary = &outcome.summary;
        let result = match engine {
            EngineChoice::Off => "",
            _ if !found.is_empty() => "DIFFERS",
            EngineChoice::Gate if summary.armed_ms.is_none() => "same; unarmed",
            EngineChoice::Gate | EngineChoice::ExceptionBitmap | EngineChoice::Auto => "same",
        };
        Self([
            test.to_owned(),
            engine.name().to_owned(),
            ended(&summary.stop),
            outcome.console.lines().count().to_string(),
            summary.faults.total.to_string(),
            outcome.counted_by_guest().map_or_else(|| "-".to_owned(), |count| count.to_string()),
            result.to_owned(),
        ])
    }
}

/// Why a run ended, in a few words.
pub fn ended(stop: &Stop) -> String {
    match stop {
        Stop::Exit { status } => format!("exit {}", status >> 1),
        Stop::Crash { detail } => detail.clone(),
        other => format!("{other:?}").to_lowercase(),
    }
}

pub fn push(row: Row) {
    ROWS.lock().unwrap().push(row);
}

/// Prints the table, if it has rows.
pub fn print() {
    let rows = ROWS.lock().unwrap();
    if rows.is_empty() {
        return;
    }
    let mut grid = Grid::new(&COLUMNS);
    for Row(cells) in rows.iter() {
        grid.row(cells.each_ref().map(String::as_str));
    }
    print!("{}", grid.render(Style::of(&io::stdout())));
}
