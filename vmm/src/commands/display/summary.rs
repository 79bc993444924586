//! A summary for people: a short table on a terminal, one line elsewhere; then the reports of hooks, then remarks.

use std::fmt::Write;
use std::time::Duration;

use vector14_hook::Report;

use super::grid::Grid;
use super::printable::printable;
use super::{Colour, Style};
use crate::vm::summary::{Exits, Faults, HookSummary, HookTotals, Stop, Summary, Until, Verdicts};

/// The summary, its hooks' tables, and the remarks.
#[must_use]
pub fn summary(summary: &Summary, style: Style) -> String {
    let mut text = match style {
        Style::Plain => {
            format!("vector14: {}\n", fields(summary).map(|(name, value)| format!("{name}: {value}")).join("; "))
        }
        Style::Terminal { .. } => table(summary).render(style),
    };
    for hook in &summary.hooks {
        text += &tables(&label(hook, &summary.hooks), &hook.report, style);
    }
    text + &remarks(summary, style)
}

/// The summary's notes and its hooks' warnings, one per line.
#[must_use]
pub fn remarks(summary: &Summary, style: Style) -> String {
    warnings(summary).iter().map(|warning| remark(warning, style)).collect()
}

/// The reports of hooks: their tables, and their warnings, one per line.
#[must_use]
pub fn reports(hooks: &[(String, Report)], style: Style) -> String {
    let tables = hooks.iter().map(|(name, report)| tables(name, report, style));
    let warnings = hooks.iter().flat_map(|(name, report)| of_hook(name.clone(), report));
    tables.chain(warnings.map(|warning| remark(&warning, style))).collect()
}

/// Why the VM ended.
#[must_use]
pub fn stop(stop: &Stop) -> String {
    match stop {
        Stop::Exit { status: 1 } => "guest passed".to_owned(),
        Stop::Exit { status } => format!("guest failed, status {status}"),
        Stop::PowerOff => "guest powered off".to_owned(),
        Stop::Reset => "guest reset the machine".to_owned(),
        Stop::Crash { detail } => format!("guest crashed: {}", printable(detail)),
        Stop::Hook { hook, detail } => format!("stopped by hook {}: {}", printable(hook), printable(detail)),
        Stop::Deadline => "deadline".to_owned(),
        Stop::Request => "stopped on request".to_owned(),
        Stop::Signal { signal } => match signal_hook::low_level::signal_name(*signal) {
            Some(name) => format!("signal {signal} ({name})"),
            None => format!("signal {signal}"),
        },
    }
}

fn fields(summary: &Summary) -> [(&'static str, String); 6] {
    let Summary { faults, verdicts, exits, .. } = summary;
    let engine = match summary.armed_ms {
        Some(armed) => format!("{}, armed after {armed} ms", summary.engine),
        None => format!("{}, never armed", summary.engine),
    };
    let engine = if summary.engine == "off" { "off".to_owned() } else { engine };
    [
        ("ended", stop(&summary.stop)),
        ("engine", engine),
        ("faults", fault_counts(faults)),
        ("verdicts", verdict_counts(verdicts)),
        ("exits", exit_counts(exits)),
        ("time", time(summary)),
    ]
}

/// The faults, by kind.
pub(super) fn fault_counts(faults: &Faults) -> String {
    counts(Faults::NAMES, faults.all())
}

/// What became of the faults, by verdict.
pub(super) fn verdict_counts(verdicts: &Verdicts) -> String {
    counts(Verdicts::NAMES, verdicts.all())
}

/// The exits, by cause.
pub(super) fn exit_counts(exits: &Exits) -> String {
    counts(Exits::NAMES, exits.all())
}

fn counts<const N: usize>(names: [&str; N], counts: [u64; N]) -> String {
    names.iter().zip(counts).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn time(summary: &Summary) -> String {
    let wall = humantime::format_duration(Duration::from_millis(summary.wall_ms));
    let plural = if summary.vcpus == 1 { "" } else { "s" };
    format!("{wall} on {} vCPU{plural}", summary.vcpus)
}

fn table(summary: &Summary) -> Grid {
    let mut grid = Grid::default();
    for (name, value) in fields(summary) {
        grid.row([name, &value]);
    }
    // Several hooks of one name that were replaced share one row.
    for hooks in summary.hooks.chunk_by(|one, next| (&one.name, one.until) == (&next.name, next.until)) {
        grid.row([&format!("hook {}", hooks[0].name), &calls(hooks)]);
    }
    grid
}

/// What became of several hooks of the same name, in total.
fn calls(hooks: &[HookSummary]) -> String {
    let mut totals = HookTotals::default();
    hooks.iter().for_each(|hook| totals.add(hook));
    let until = match hooks[0].until {
        Until::End => String::new(),
        Until::Replaced => format!("replaced {}: ", times(hooks.len())),
        Until::Removed => "removed: ".to_owned(),
    };
    until + &total_calls(&totals)
}

/// What became of the hooks that are not listed.
fn earlier(totals: &HookTotals) -> Option<String> {
    let calls = total_calls(totals);
    (totals.hooks > 0)
        .then(|| format!("{} hooks that were taken out earlier have no report here: {calls}", totals.hooks))
}

fn total_calls(totals: &HookTotals) -> String {
    let counts = [("failed", totals.failures), ("over budget", totals.over_budget), ("looped", totals.loops)];
    let mut text = format!("called {}", totals.calls);
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        text += &format!(", {name} {count}");
    }
    text
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The hook's name, with its number if others among `hooks` have the same name, and what became of it before the end.
fn label(hook: &HookSummary, hooks: &[HookSummary]) -> String {
    let is_only = hooks.iter().filter(|other| other.name == hook.name).count() == 1;
    let number = (!is_only).then(|| format!("number {}", hook.number));
    let until = match hook.until {
        Until::End => None,
        Until::Replaced => Some("replaced".to_owned()),
        Until::Removed => Some("removed".to_owned()),
    };
    let said: Vec<_> = number.into_iter().chain(until).collect();
    if said.is_empty() { hook.name.clone() } else { format!("{} ({})", hook.name, said.join(", ")) }
}

fn tables(name: &str, report: &Report, style: Style) -> String {
    let mut text = String::new();
    for table in &report.tables {
        let title = printable(&format!("{name}: {}", table.title));
        let grid = Grid { columns: table.columns.clone(), rows: table.rows.clone() };
        let gap = if style == Style::Plain { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = write!(text, "{gap}{title}\n{}", grid.render(style));
    }
    text
}

fn warnings(summary: &Summary) -> Vec<String> {
    summary
        .notes
        .iter()
        .cloned()
        .chain(earlier(&summary.earlier_hooks))
        .chain(summary.hooks.iter().flat_map(|hook| of_hook(label(hook, &summary.hooks), &hook.report)))
        .collect()
}

fn of_hook(name: String, report: &Report) -> impl Iterator<Item = String> {
    report.warnings.iter().map(move |warning| format!("hook {name}: {warning}"))
}

fn remark(text: &str, style: Style) -> String {
    let text = printable(text);
    match style.colour() {
        Colour::On => format!("\u{1b}[33mvector14: {text}\u{1b}[0m\n"),
        Colour::Off => format!("vector14: {text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::{Report, Table};

    use super::*;

    fn hook(calls: u64, until: Until) -> HookSummary {
        HookSummary {
            name: "count".to_owned(),
            number: 1,
            calls,
            failures: 0,
            over_budget: 0,
            loops: 0,
            left_out: false,
            until,
            ended: true,
            report: Report::default(),
        }
    }

    fn sample() -> Summary {
        let table = Table {
            title: "by kind".to_owned(),
            columns: vec!["kind".to_owned(), "faults".to_owned()],
            rows: vec![vec!["write, user, not present".to_owned(), "1000".to_owned()]],
        };
        let report = Report { tables: vec![table], warnings: vec!["3 lines lost".to_owned()] };
        Summary {
            stop: Stop::Exit { status: 1 },
            engine: "gate",
            armed_ms: Some(3),
            wall_ms: 1250,
            vcpus: 2,
            faults: Faults { total: 1000, user: 1000, write: 1000, ..Faults::default() },
            verdicts: Verdicts { reinject: 1000, ..Verdicts::default() },
            exits: Exits { total: 1034, fault: 1000, io: 34, ..Exits::default() },
            hooks: vec![HookSummary { report, ..hook(1000, Until::End) }],
            earlier_hooks: HookTotals::default(),
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn a_pipe_gets_one_line_and_then_the_reports() {
        let text = summary(&sample(), Style::Plain);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "vector14: ended: guest passed; engine: gate, armed after 3 ms; faults: total 1000, user 1000, \
             write 1000, fetch 0, present 0, reserved 0; verdicts: reinject 1000, resolve 0, skip 0, raise 0, stop 0; \
             exits: total 1034, fault 1000, io 34, mmio 0, hlt 0, kick 0, other 0; time: 1s 250ms on 2 vCPUs"
        );
        let rest = [
            "count: by kind",
            "kind\tfaults",
            "write, user, not present\t1000",
            "vector14: a note",
            "vector14: hook count: 3 lines lost",
        ];
        assert_eq!(lines[1..], rest);
    }

    #[test]
    fn a_terminal_gets_a_table_no_wider_than_itself() {
        let text = summary(&sample(), Style::Terminal { width: 80, colour: Colour::Off });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("hook count  called 1000\n"), "{text}");
        assert!(text.contains("vector14: hook count: 3 lines lost"), "{text}");
    }

    #[test]
    fn hooks_that_were_taken_out_are_counted_together() {
        let replaced = [hook(10, Until::Replaced), HookSummary { over_budget: 2, ..hook(32, Until::Replaced) }];
        assert_eq!(calls(&replaced), "replaced 2 times: called 42, over budget 2");
        assert_eq!(
            calls(&[HookSummary { failures: 1, loops: 3, ..hook(5, Until::End) }]),
            "called 5, failed 1, looped 3"
        );
        assert_eq!(calls(&[hook(5, Until::Removed)]), "removed: called 5");
    }

    #[test]
    fn reports_of_hooks_of_one_name_are_told_apart() {
        let mut sample = sample();
        let last = sample.hooks[0].clone();
        sample.hooks.insert(0, HookSummary { until: Until::Replaced, ..last.clone() });
        sample.hooks.push(HookSummary { number: 3, ..last });
        sample.earlier_hooks = HookTotals { hooks: 189, calls: 7, loops: 1, ..HookTotals::default() };
        sample.hooks[1].number = 2;
        let plain = summary(&sample, Style::Plain);
        for (title, warning) in [
            ("count (number 1, replaced): by kind", "hook count (number 1, replaced): 3 lines lost"),
            ("count (number 2): by kind", "hook count (number 2): 3 lines lost"),
            ("count (number 3): by kind", "hook count (number 3): 3 lines lost"),
        ] {
            assert!(plain.contains(title) && plain.contains(warning), "{plain}");
        }
        let earlier = "vector14: 189 hooks that were taken out earlier have no report here: called 7, looped 1";
        assert!(plain.contains(earlier), "{plain}");
    }

    #[test]
    fn ends_are_told_in_words() {
        let detail = "triple\nfault".to_owned();
        assert_eq!(stop(&Stop::Crash { detail }), "guest crashed: triple\\nfault");
        assert_eq!(stop(&Stop::Signal { signal: 15 }), "signal 15 (SIGTERM)");
        assert_eq!(stop(&Stop::Exit { status: 7 }), "guest failed, status 7");
    }
}
