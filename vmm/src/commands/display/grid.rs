//! Rows and columns: a table on a terminal, tab-separated lines elsewhere.

use std::fmt::Write;

use comfy_table::{Attribute, Cell, ContentArrangement, LineStyle, Table, TableStyle};

use super::printable::printable;
use super::{Colour, Style};

/// Rows and columns.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// Column headings; empty for a grid without headings.
    pub columns: Vec<String>,
    /// The cells of each row.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// A grid with headings.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) -> &mut Self {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
        self
    }

    /// Renders the grid as lines of text; the last one ends with a newline, too.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        match style {
            Style::Plain => self.lines(),
            Style::Terminal { width, colour } => self.table(width, colour),
        }
    }

    fn lines(&self) -> String {
        let headings = (!self.columns.is_empty()).then_some(&self.columns);
        let line = |cells: &Vec<String>| cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("\t") + "\n";
        headings.into_iter().chain(&self.rows).map(line).collect()
    }

    fn table(&self, width: u16, colour: Colour) -> String {
        let mut table = Table::new();
        let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
        table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic).set_width(width).force_no_tty();
        if colour == Colour::On {
            table.enforce_styling();
        }
        let bold = |text: &String| Cell::new(printable(text)).add_attribute(Attribute::Bold);
        if !self.columns.is_empty() {
            table.set_header(self.columns.iter().map(bold));
        }
        for row in &self.rows {
            let name = row.iter().take(1).map(bold);
            table.add_row(name.chain(row.iter().skip(1).map(|cell| Cell::new(printable(cell)))).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
        let mut text = String::new();
        for line in table.lines() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&["rip", "faults"]);
        grid.row(["0x1000", "7"]).row(["\u{1b}[31mred\t", "12"]);
        grid
    }

    #[test]
    fn plain_lines_are_tab_separated_and_free_of_control_characters() {
        assert_eq!(grid().render(Style::Plain), "rip\tfaults\n0x1000\t7\n\\u{1b}[31mred\\t\t12\n");
    }

    #[test]
    fn a_terminal_gets_columns_and_colours_only_where_they_show() {
        let plain = grid().render(Style::Terminal { width: 60, colour: Colour::Off });
        assert!(!plain.contains('\u{1b}') && plain.contains("───"), "{plain}");
        let colour = grid().render(Style::Terminal { width: 60, colour: Colour::On });
        assert!(colour.contains("\u{1b}[1m"), "{colour}");
    }

    #[test]
    fn a_narrow_terminal_wraps_cells_instead_of_lines() {
        let mut grid = Grid::default();
        grid.row(["ended", "a sentence that is far too long for a terminal of forty columns"]);
        let text = grid.render(Style::Terminal { width: 40, colour: Colour::Off });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}
