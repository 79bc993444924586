//! What a hook has to say when the VM has ended.

use serde::Serialize;

/// A hook's last words: tables and remarks, laid out by whoever shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Results.
    pub tables: Vec<Table>,
    /// Things that went wrong, a sentence each.
    pub warnings: Vec<String>,
}

/// A table of results. Every row has as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// Column headings.
    pub columns: Vec<String>,
    /// Cells, a row each.
    pub rows: Vec<Vec<String>>,
}
