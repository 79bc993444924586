//! The report that a hook returns at its end.

use serde::{Deserialize, Serialize};

/// A hook's final report: tables and warnings. The program that shows it decides the layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    /// The results.
    pub tables: Vec<Table>,
    /// What went wrong, one sentence per entry.
    pub warnings: Vec<String>,
}

impl Report {
    /// Parses a report that foreign code wrote as JSON. An empty string is an empty report. Whatever can't be used
    /// becomes a warning.
    pub(crate) fn from_json(json: &str) -> Self {
        if json.is_empty() {
            return Self::default();
        }
        let mut report: Self = serde_json::from_str(json).unwrap_or_else(|error| Self {
            warnings: vec![format!("the hook's report is malformed: {error}")],
            ..Self::default()
        });
        let is_even = |table: &Table| table.rows.iter().all(|row| row.len() == table.columns.len());
        let (even, uneven): (Vec<_>, Vec<_>) = report.tables.into_iter().partition(is_even);
        report.tables = even;
        report.warnings.extend(uneven.into_iter().map(|Table { title, columns, .. }| {
            format!("the hook's table `{title}` has rows that do not have {} cells", columns.len())
        }));
        report
    }
}

/// A table of results. Every row has as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// Column headings.
    pub columns: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_parts_of_a_report_become_warnings() {
        assert_eq!(Report::from_json(""), Report::default());
        let report = Report::from_json(r#"{"tables": [{"title": "t", "columns": ["a"], "rows": [["1"]]}]}"#);
        assert_eq!((report.tables[0].rows.len(), report.warnings.len()), (1, 0));
        for (json, words) in [
            ("7", "expected"),
            ("{", "line 1"),
            (r#"{"warnings": 3}"#, "sequence"),
            (r#"{"tables": [{"title": "t", "columns": ["a"], "rows": [["1", "2"]]}]}"#, "`t`"),
        ] {
            let report = Report::from_json(json);
            assert!(report.tables.is_empty() && report.warnings[0].contains(words), "{json}: {report:?}");
        }
    }
}
