//! A table in memory: cells in one piece of text, each row with its line in the file, whatever the file's format was.

use super::error::InputError;
use serde::{Deserialize, Serialize};

/// How a table was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableFormat {
    /// Comma-separated.
    Csv,
    /// Tab-separated.
    Tsv,
    /// Separated by semicolons.
    SemicolonSeparated,
    /// Separated by vertical bars.
    BarSeparated,
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects.
    JsonArray,
}

/// Row hashes are listed one by one up to this many rows; beyond it their joint hash stands for them.
const LISTED_HASHES: usize = 10_000;

/// The hashes of a table's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowHashes {
    pub count: usize,
    /// blake3 over the rows' own hashes, in order.
    pub blake3: String,
    /// blake3 of every row as written, without its line end; empty above 10,000 rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<String>,
}

/// A table. Cells are trimmed; rows of JSON may be shorter than the columns.
pub(crate) struct Table {
    pub path: String,
    pub format: TableFormat,
    pub columns: Vec<String>,
    cells: String,
    /// For each row where its cells begin in `cells` and in `ends`, and its line.
    rows: Vec<(usize, usize, u64)>,
    /// Where each cell ends, from its row's begin.
    ends: Vec<u32>,
    joint: blake3::Hasher,
    each: Vec<String>,
}

impl Table {
    pub fn new(path: &str, format: TableFormat, columns: Vec<String>) -> Table {
        let path = path.to_string();
        let (cells, rows, ends) = (String::new(), Vec::new(), Vec::new());
        Table { path, format, columns, cells, rows, ends, joint: blake3::Hasher::new(), each: Vec::new() }
    }

    /// Adds a row with its text in the file, which is hashed.
    pub fn push<'a>(&mut self, line: u64, raw: &str, cells: impl Iterator<Item = &'a str>) {
        let hash = blake3::hash(raw.as_bytes());
        self.joint.update(hash.as_bytes());
        if self.each.len() <= LISTED_HASHES {
            self.each.push(hash.to_hex().to_string());
        }
        let begin = self.cells.len();
        self.rows.push((begin, self.ends.len(), line));
        for cell in cells {
            self.cells.push_str(cell.trim());
            self.ends.push(u32::try_from(self.cells.len() - begin).unwrap_or(u32::MAX));
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row's line in the file, from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.rows[row].2
    }

    /// The cell's text; empty where the row ends before it.
    pub fn cell(&self, row: usize, column: usize) -> &str {
        let (begin, first, _) = self.rows[row];
        let last = self.rows.get(row + 1).map_or(self.ends.len(), |next| next.1);
        let at = first + column;
        if at >= last {
            return "";
        }
        let from = if column == 0 { 0 } else { self.ends[at - 1] as usize };
        // A row of more than 4 GiB has no cells worth reading.
        self.cells.get(begin + from..begin + self.ends[at] as usize).unwrap_or("")
    }

    pub fn hashes(&self) -> RowHashes {
        let each = if self.len() > LISTED_HASHES { Vec::new() } else { self.each.clone() };
        RowHashes { count: self.len(), blake3: self.joint.finalize().to_hex().to_string(), each }
    }

    /// The columns, for messages.
    pub fn listed(&self) -> String {
        listed(&self.columns)
    }

    pub fn bad(&self, row: usize, column: usize, allowed: &'static str) -> InputError {
        InputError::BadValue {
            path: self.path.clone(),
            line: self.line(row),
            column: self.columns[column].clone(),
            found: shortened(self.cell(row, column)),
            allowed,
        }
    }
}

/// Names in backquotes, the first forty of them.
pub(crate) fn listed(names: &[String]) -> String {
    const MOST: usize = 40;
    let shown: Vec<String> = names.iter().take(MOST).map(|n| format!("`{}`", shortened(n))).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Text for a message: one line, at most sixty characters.
pub(crate) fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(60).map(clean).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
