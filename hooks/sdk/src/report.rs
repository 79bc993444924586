//! What a hook has to say when the VM has ended.

use serde::{Deserialize, Serialize};

/// A hook's last words: tables and remarks, laid out by whoever shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    /// Results.
    pub tables: Vec<Table>,
    /// Things that went wrong, a sentence each.
    pub warnings: Vec<String>,
}

impl Report {
    /// A report that somebody else's code wrote as JSON: no text is an empty one, and what can't be used of another becomes a
    /// warning.
    pub(crate) fn from_json(json: &str) -> Self {
        if json.is_empty() {
            return Self::default();
        }
        let mut report: Self = serde_json::from_str(json).unwrap_or_else(|error| Self {
            warnings: vec![format!("the hook's report is not what it should be: {error}")],
            ..Self::default()
        });
        let is_even = |table: &Table| table.rows.iter().all(|row| row.len() == table.columns.len());
        let (even, uneven): (Vec<_>, Vec<_>) = report.tables.into_iter().partition(is_even);
        report.tables = even;
        report.warnings.extend(uneven.into_iter().map(|Table { title, columns, .. }| {
            format!("the hook's table `{title}` has rows that do not have its {} cells", columns.len())
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
    /// Cells, a row each.
    pub rows: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_used_of_a_report_becomes_a_warning() {
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
