//! What is known of a hook after its end.

use serde::Serialize;
use vector14_hook::Report;

/// Summary of one hook at its end.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HookSummary {
    /// Its name.
    pub name: String,
    /// Number among all hooks that the VM has had, from 1; tells hooks of the same name apart.
    pub number: u64,
    /// Number of calls.
    pub calls: u64,
    /// Number of times it panicked, failed, or gave a verdict that could not be applied.
    pub failures: u64,
    /// Number of calls that took longer than the budget.
    pub over_budget: u64,
    /// Number of loops: it resolved a fault repeatedly and the guest made no progress.
    pub loops: u64,
    /// Whether the hook failed and was no longer asked.
    pub left_out: bool,
    /// What ended its time in the chain.
    pub until: Until,
    /// Whether the hook ended. It did not if a vCPU is stuck in it, or if its end took longer than its timeout; its
    /// report is then empty.
    pub ended: bool,
    /// The hook's own report.
    #[cfg_attr(test, schemars(with = "ReportJson"))]
    pub report: Report,
}

/// Largest size of a report's text, in bytes.
const REPORT_MAX: usize = 1 << 20;

/// Truncates a report to 1 MiB of text; if that leaves anything out, adds a warning.
pub(crate) fn bounded(mut report: Report) -> Report {
    let mut room = REPORT_MAX;
    let mut left_out = 0;
    let mut fits = |texts: &[String]| {
        let size = texts.iter().map(|text| text.len() + 1).sum();
        let rest = room.checked_sub(size);
        room = rest.unwrap_or(0);
        left_out += u64::from(rest.is_none());
        rest.is_some()
    };
    report.tables.retain(|table| fits(std::slice::from_ref(&table.title)) && fits(&table.columns));
    for table in &mut report.tables {
        table.rows.retain(|row| fits(row));
    }
    report.warnings.retain(|warning| fits(std::slice::from_ref(warning)));
    if left_out > 0 {
        report
            .warnings
            .push(format!("the report is longer than 1 MiB: {left_out} rows, tables or warnings are left out"));
    }
    report
}

/// Totals of several hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HookTotals {
    /// Number of hooks.
    pub hooks: u64,
    /// The sum of [`HookSummary::calls`].
    pub calls: u64,
    /// The sum of [`HookSummary::failures`].
    pub failures: u64,
    /// The sum of [`HookSummary::over_budget`].
    pub over_budget: u64,
    /// The sum of [`HookSummary::loops`].
    pub loops: u64,
}

impl HookTotals {
    /// Adds a hook to the totals.
    pub fn add(&mut self, hook: &HookSummary) {
        self.hooks += 1;
        self.calls += hook.calls;
        self.failures += hook.failures;
        self.over_budget += hook.over_budget;
        self.loops += hook.loops;
    }
}

/// What ended a hook's time in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// The VM ended.
    End,
    /// Another hook replaced it.
    Replaced,
    /// It was taken out.
    Removed,
}

/// A hook's report, as JSON: for the schema of a summary.
#[cfg(test)]
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema and its parsing are used")]
#[serde(rename = "Report", deny_unknown_fields)]
pub(crate) struct ReportJson {
    /// The results.
    tables: Vec<TableJson>,
    /// What went wrong, one sentence per entry.
    warnings: Vec<String>,
}

/// A table of a report. Every row has as many cells as there are columns.
#[cfg(test)]
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema and its parsing are used")]
#[serde(rename = "Table", deny_unknown_fields)]
struct TableJson {
    /// What the table shows.
    title: String,
    /// Headings of the columns.
    columns: Vec<String>,
    /// The cells, row by row.
    rows: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use vector14_hook::Table;

    use super::*;

    fn report(rows: usize, cell: usize, warnings: usize) -> Report {
        let row = || vec!["x".repeat(cell), String::new()];
        let columns = vec!["a".to_owned(), "b".to_owned()];
        let table = Table { title: "t".to_owned(), columns, rows: (0..rows).map(|_| row()).collect() };
        Report { tables: vec![table], warnings: vec!["w".repeat(cell); warnings] }
    }

    #[test]
    fn a_usual_report_is_left_as_it_is() {
        assert_eq!(bounded(report(1000, 100, 10)), report(1000, 100, 10));
    }

    #[test]
    fn a_report_is_bounded_and_says_what_it_lacks() {
        for (rows, cell, warnings) in [(1_000_000, 10, 3), (3, 1 << 20, 0), (0, 1000, 10_000), (2_000_000, 0, 0)] {
            let long = bounded(report(rows, cell, warnings));
            let texts = long.tables.iter().flat_map(|table| table.rows.iter().flatten()).chain(&long.warnings);
            assert!(texts.map(|text| text.len() + 1).sum::<usize>() < REPORT_MAX + 200);
            let kept = long.tables[0].rows.len() + long.warnings.len() - 1;
            let said = format!("1 MiB: {} rows, tables or warnings are left out", rows + warnings - kept);
            assert!(long.warnings.last().unwrap().contains(&said), "{:?} instead of {said}", long.warnings.last());
        }
    }
}
