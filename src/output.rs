//! Writing to standard output and error without a panic when the reader has gone, and tables.

use miette::IntoDiagnostic;
use std::io::{ErrorKind, Write};

/// Prints text as it is. A reader that went away, as `| head` does, ends the program quietly.
pub fn print(text: &str) -> miette::Result<()> {
    bytes(text.as_bytes())
}

/// Writes bytes to standard output as [`print`] does text.
pub fn bytes(bytes: &[u8]) -> miette::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.into_diagnostic(),
    }
}

/// Prints a line.
pub fn line(text: &str) -> miette::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a line to standard error. A reader that went away or a full disk is no reason to stop a run.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a value as indented JSON.
#[cfg(feature = "study")]
pub fn json<T: serde::Serialize>(value: &T) -> miette::Result<()> {
    line(&serde_json::to_string_pretty(value).into_diagnostic()?)
}

/// A table with these headings; columns from `first_number` on are set to the right.
#[cfg(feature = "study")]
pub fn table(headings: &[&str], first_number: usize) -> comfy_table::Table {
    use comfy_table::presets;
    use comfy_table::{CellAlignment, ContentArrangement, Table};
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.to_vec());
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
