//! The tables of all log lines in `docs/operations.md`, and whether a line is in them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// A row of the tables: the lines that it documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub action: String,
    pub results: BTreeSet<String>,
    pub levels: BTreeSet<String>,
    pub fields: BTreeSet<String>,
    /// Whether its lines have all of these fields, not only some.
    pub has_all_fields: bool,
}

/// A line of a log; of its fields the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub level: &'a str,
    pub action: &'a str,
    pub result: &'a str,
    pub fields: BTreeSet<String>,
}

impl Row {
    /// Whether the row documents that line.
    pub fn documents(&self, line: &Line<'_>) -> bool {
        let fields_fit = if self.has_all_fields {
            self.fields == line.fields
        } else {
            self.fields.is_superset(&line.fields)
        };
        let fits = self.action == line.action && self.results.contains(line.result);
        fits && self.levels.contains(line.level) && fields_fit
    }
}

/// All rows of both tables.
pub static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let page = include_str!("../../docs/operations.md");
    let tables = page.lines().skip_while(|line| *line != "### Lines of the server");
    let tables = tables.take_while(|line| !line.starts_with("## "));
    let rows: Vec<Row> = tables.filter(|line| line.starts_with("| `")).map(parse).collect();
    assert!(rows.len() > 40, "docs/operations.md has lost its tables of log lines");
    rows
});

fn parse(row: &str) -> Row {
    let cells: Vec<&str> = row.split('|').skip(1).map(str::trim).collect();
    let [action, results, levels, fields, _meaning, ..] = cells[..] else {
        panic!("cells are missing: {row}")
    };
    let words = |cell: &str| -> BTreeSet<String> {
        let words = cell.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let marked: BTreeSet<String> = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Row {
        action: action.trim_matches('`').to_owned(),
        results: words(results),
        levels: words(levels).into_iter().filter(|word| word.chars().all(char::is_uppercase)).collect(),
        has_all_fields: words(fields) == marked,
        fields: marked,
    }
}

/// Panics if the tables have no row for that line. Only debug builds write `probe` lines.
#[track_caller]
pub fn assert_has(line: &Line<'_>) {
    let known = line.action == "probe" || ROWS.iter().any(|row| row.documents(line));
    assert!(known, "docs/operations.md has no row for {line:?}");
}
