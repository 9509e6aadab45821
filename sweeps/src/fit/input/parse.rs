//! From bytes to a table: what kind of file it is, then CSV with any common separator, JSON lines, or a JSON array.

use super::error::InputError;
use super::json;
use super::lines::Lines;
use super::table::{Table, TableFormat};

/// First bytes of files that are not text, what they are, and what to do.
const MAGIC: [(&[u8], &str, &str); 10] = [
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first: zstd -d FILE"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ", "an xz file", "unpack it first: xz -d FILE"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"PAR1", "a Parquet file", "write it as CSV: pandas.read_parquet(FILE).to_csv(...)"),
    (b"ARROW1", "an Arrow file", "write it as CSV: pandas.read_feather(FILE).to_csv(...)"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8: iconv -f utf-16 -t utf-8 FILE"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8: iconv -f utf-16 -t utf-8 FILE"),
];

/// Reads a file's bytes as a table with at least one row.
///
/// # Errors
/// When it is no text, has no rows, or breaks its own format; with the line where it does.
pub(crate) fn table(path: &str, bytes: &[u8]) -> Result<Table, InputError> {
    if let Some((_, what, help)) = MAGIC.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(InputError::NotText { path: path.into(), what, help });
    }
    if bytes.iter().take(4096).any(|b| *b == 0) {
        let help = "give a table of runs as text";
        return Err(InputError::NotText { path: path.into(), what: "a binary file", help });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        InputError::NotUtf8 { path: path.into(), line }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let table = match text.trim_start().as_bytes().first() {
        None => return Err(InputError::Empty { path: path.into() }),
        Some(b'{') => json::lines(path, text)?,
        Some(b'[') => json::array(path, text)?,
        Some(_) => separated(path, text)?,
    };
    for (second, name) in table.columns.iter().enumerate() {
        let first = table.columns.iter().position(|c| c == name).unwrap_or(second);
        if first != second && !name.is_empty() {
            let (path, name) = (path.to_string(), name.clone());
            return Err(InputError::DuplicateColumn { path, name, first: first + 1, second: second + 1 });
        }
    }
    if table.len() == 0 {
        return Err(InputError::NoRows { path: path.into(), columns: table.listed() });
    }
    Ok(table)
}

/// The separator that the header line has most of, outside of quotes.
fn separator(header: &str) -> (u8, TableFormat) {
    const ALL: [(u8, TableFormat); 4] = [
        (b',', TableFormat::Csv),
        (b'\t', TableFormat::Tsv),
        (b';', TableFormat::SemicolonSeparated),
        (b'|', TableFormat::BarSeparated),
    ];
    let mut counts = [0usize; 4];
    let mut quoted = false;
    for byte in header.bytes() {
        quoted ^= byte == b'"';
        if let Some(k) = ALL.iter().position(|(s, _)| *s == byte && !quoted) {
            counts[k] += 1;
        }
    }
    let best = (0..4).rev().max_by_key(|&k| counts[k]).unwrap_or(0);
    ALL[best]
}

fn separated(path: &str, text: &str) -> Result<Table, InputError> {
    let header_line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    let (separator, format) = separator(header_line);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let mut table: Option<Table> = None;
    let mut lines = Lines::of(text);
    loop {
        let from = reader.position().byte() as usize;
        let more = reader.read_record(&mut record).map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            InputError::Csv { path: path.into(), line, message: e.to_string() }
        })?;
        if !more {
            break;
        }
        let line = lines.at(from);
        let end = (reader.position().byte() as usize).min(text.len());
        // Blank lines before the record are skipped by the reader and belong to no row.
        let raw = text.get(from..end).unwrap_or("").trim_matches(['\r', '\n']);
        if end == text.len() && is_open(raw, separator) {
            return Err(InputError::OpenQuote { path: path.into(), line });
        }
        let Some(table) = &mut table else {
            let columns = record.iter().map(|c| c.trim().to_string()).collect();
            table = Some(Table::new(path, format, columns));
            continue;
        };
        let width = table.columns.len();
        let spare = record.iter().skip(width).any(|c| !c.trim().is_empty());
        if record.len() < width || spare {
            return Err(InputError::Ragged {
                path: path.into(),
                line,
                found: record.len(),
                expected: width,
                separator: separator.into(),
            });
        }
        table.push(line, raw, record.iter().take(width));
    }
    table.ok_or_else(|| InputError::Empty { path: path.into() })
}

/// Whether the last record of a file ends inside quotes: a quote begins one of its cells, and their number is odd.
fn is_open(raw: &str, separator: u8) -> bool {
    let bytes = raw.as_bytes();
    let begins = |i: usize| bytes[i] == b'"' && (i == 0 || bytes[i - 1] == separator);
    bytes.iter().filter(|b| **b == b'"').count() % 2 == 1 && (0..bytes.len()).any(begins)
}
