//! Shows a running VM to people: what it is doing, its hooks, and its counts over time.

use std::time::Duration;

use serde_json::Value;

use super::Style;
use super::grid::Grid;
use super::summary::{exit_counts, fault_counts, verdict_counts};
use crate::commands::ctl::Stats;
use crate::intercept::chain::HookStatus;
use crate::intercept::counts::Verdicts;
use crate::vm::{RunState, Status};

/// What the VM is doing, one name and value per row.
#[must_use]
pub fn status(status: &Status, style: Style) -> String {
    let engine = match (status.attached, status.armed) {
        (_, true) => format!("{}, armed", status.engine),
        (true, false) => format!("{}, not armed yet", status.engine),
        (false, false) if status.engine == "off" => status.engine.clone(),
        (false, false) => format!("{}, detached", status.engine),
    };
    let mut time = duration(status.run_ms);
    if status.paused_ms > 0 {
        time += &format!(", paused for {} of that", duration(status.paused_ms));
    }
    let hooks: Vec<_> = status.hooks.iter().map(|hook| hook.name.as_str()).collect();
    let mut grid = Grid::default();
    grid.row(["state", state(status.state)])
        .row(["time", &time])
        .row(["vcpus", &status.vcpus.to_string()])
        .row(["engine", &engine])
        .row(["faults", &fault_counts(&status.faults)])
        .row(["verdicts", &verdict_counts(&status.verdicts)])
        .row(["exits", &exit_counts(&status.exits)])
        .row(["hooks", &if hooks.is_empty() { "none".to_owned() } else { hooks.join(", ") }]);
    grid.render(style)
}

/// The hooks, one per row, in chain order.
#[must_use]
pub fn hooks(hooks: &[HookStatus], style: Style) -> String {
    let mut grid = Grid::new(&["hook", "type", "called", "failed", "over budget", "looped", "options"]);
    for hook in hooks {
        let failed = if hook.left_out { format!("{}, left out", hook.failures) } else { hook.failures.to_string() };
        grid.row([
            &hook.name,
            hook.kind.as_deref().unwrap_or("-"),
            &hook.calls.to_string(),
            &failed,
            &hook.over_budget.to_string(),
            &hook.loops.to_string(),
            &options(hook),
        ]);
    }
    grid.render(style)
}

/// The hook's options, in the form that `vector14 ctl … set` takes.
fn options(hook: &HookStatus) -> String {
    let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let own = hook.options.iter().map(|(key, option)| format!("{key}={}", value(option)));
    let trust = [
        format!("budget={}", duration(hook.budget_ms)),
        format!("timeout={}", duration(hook.timeout_ms)),
        format!("on_error={}", hook.on_error),
    ];
    own.chain(trust).collect::<Vec<_>>().join(" ")
}

/// The heading line for the lines of [`stats`].
#[must_use]
pub fn stats_head(style: Style) -> String {
    columns(["ms", "faults/s", "exits/s", "faults"].into_iter().chain(Verdicts::NAMES).map(str::to_owned), style)
}

/// The counts at one moment, on one line.
#[must_use]
pub fn stats(stats: &Stats, style: Style) -> String {
    let Stats { run_ms, faults_per_s, exits_per_s, faults, verdicts, .. } = stats;
    let numbers = [*run_ms, *faults_per_s, *exits_per_s, faults.total].into_iter().chain(verdicts.all());
    columns(numbers.map(|number| number.to_string()), style)
}

/// Lays out one line. Lines are shown as they come, so columns can't be sized to their widest cell.
fn columns(cells: impl Iterator<Item = String>, style: Style) -> String {
    let line = |cells: Vec<String>, between| cells.join(between) + "\n";
    match style {
        Style::Plain => line(cells.collect(), "\t"),
        Style::Terminal { .. } => line(cells.map(|cell| format!("{cell:>9}")).collect(), " "),
    }
}

/// What the VM is doing, in one word.
#[must_use]
fn state(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Ended => "ended",
    }
}

fn duration(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}
