//! What was measured, as a table for people.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

/// One line: what was measured, what the design promises, what was reached, and what another tool reaches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) measured: String,
    pub(crate) peer: String,
    /// Nothing where there is no promise, or where this machine can not tell.
    pub(crate) met: Option<bool>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            ..Self::default()
        }
    }

    pub(crate) fn target(mut self, target: impl Into<String>, met: bool) -> Self {
        self.target = target.into();
        self.met = Some(met);
        self
    }

    pub(crate) fn peer(mut self, peer: impl Into<String>) -> Self {
        self.peer = peer.into();
        self
    }

    fn cells(&self) -> [&str; 5] {
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        [&self.what, &self.target, &self.measured, &self.peer, met]
    }
}

const TITLES: [&str; 5] = ["what", "target", "measured", "peer", "met"];

/// For a terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(TITLES);
    for row in rows {
        table.add_row(row.cells());
    }
    table.to_string()
}

/// docs/benchmarks.md.
pub(crate) fn page(machine: &str, rows: &[Row]) -> String {
    let mut page = format!(
        "# Benchmarks\n\n\
         Run again, as root, on an otherwise idle machine with at least two cores (some ten minutes):\n\n\
         \x20   cargo xtask bench            # all, as a table\n\
         \x20   cargo xtask bench ring       # one or more by name\n\
         \x20   cargo xtask bench --write    # all, and this page is written anew\n\n\
         {INTRODUCTION}\n\n\
         Measured on: {machine}\n\n"
    );
    line(&mut page, TITLES);
    line(&mut page, ["---"; 5]);
    for row in rows {
        line(&mut page, row.cells());
    }
    page.push('\n');
    page.push_str(NOTES);
    page
}

fn line(page: &mut String, cells: [&str; 5]) {
    for cell in cells {
        // Writing to a string can not fail.
        let _ = write!(page, "| {} ", cell.replace('|', "\\|"));
    }
    page.push_str("|\n");
}

const INTRODUCTION: &str = "\
Each number is the median of several rounds, with the least and the most in brackets. Rounds of what is compared \
alternate, so that both meet the same noise. Costs of a call are processor time of the calling thread, which another \
busy program does not add to. Nothing fails because it was slow: `met` holds the number against the design's promise, \
and is empty where the design promises nothing or where the machine can not tell.";

const NOTES: &str = include_str!("notes.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_line_for_each_row() {
        let rows = [Row::new("a | b", "5 ns").target("<= 6 ns", true).peer("9 ns")];
        let page = page("a machine", &rows);
        assert!(
            page.contains("| a \\| b | <= 6 ns | 5 ns | 9 ns | yes |"),
            "{page}"
        );
        assert!(table(&rows).contains("5 ns"));
    }
}
