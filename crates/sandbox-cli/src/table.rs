//! Tables for people: a strong header, and rows that play no tricks on a terminal.

use crate::output::{STRONG, printable};
use comfy_table::{ColumnConstraint, Table, presets};

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Listing(Table);

impl Listing {
    /// No rows yet.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(header);
        Self(table)
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0
            .add_row(cells.into_iter().map(|cell| printable(&cell)));
    }

    /// Leaves out a column in which nothing is to be seen.
    pub(crate) fn hide(&mut self, column: usize) {
        if let Some(column) = self.0.column_mut(column) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }

    /// All of it, without a line feed at the end.
    pub(crate) fn text(mut self) -> String {
        for column in self.0.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = self.0.trim_fmt();
        match text.split_once('\n') {
            Some((header, rows)) => format!("{STRONG}{header}{STRONG:#}\n{rows}"),
            None => text,
        }
    }
}
