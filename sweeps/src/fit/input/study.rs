//! The runs.csv of a study and the metrics.csv of a run, which this tool wrote: read strictly, and written.

use super::lines::Lines;
use crate::fit::error::FitError;
use crate::fit::records::{Curve, CurvePoint, RunRecord, RunStatus};
use std::collections::HashMap;
use std::path::Path;

const RUN_COLUMNS: [&str; 13] = [
    "id",
    "size",
    "status",
    "params",
    "params_non_embedding",
    "tokens",
    "flops",
    "flops_convention",
    "budget",
    "seed",
    "train_loss",
    "validation_loss",
    "reason",
];
const POSITIVE: &str = "a number above 0";
const LOSS: &str = "a loss in nats per token above 0";

/// A CSV file in memory whose cells are found by column name.
struct Table {
    path: String,
    columns: HashMap<String, usize>,
    header: String,
    rows: Vec<(u64, csv::StringRecord)>,
}

impl Table {
    /// Reads a file, tolerating a byte order mark, CRLF and blank lines.
    fn read(path: &Path, what: &'static str) -> Result<Table, FitError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| FitError::File { path: name.clone(), source })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| FitError::Csv { path: name.clone(), message: "it is not UTF-8 text".into() })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
        let csv_error = |e: csv::Error| FitError::Csv { path: name.clone(), message: e.to_string() };
        let header = reader.headers().map_err(csv_error)?.clone();
        let columns = header.iter().enumerate().map(|(i, c)| (c.to_string(), i)).collect();
        let mut rows = Vec::new();
        let mut lines = Lines::of(text);
        for record in reader.records() {
            let record = record.map_err(csv_error)?;
            rows.push((lines.at(record.position().map_or(0, |p| p.byte()) as usize), record));
        }
        if rows.is_empty() {
            return Err(FitError::EmptyFile { path: name, what });
        }
        let header = header.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
        Ok(Table { path: name, columns, header, rows })
    }

    fn require(&self, columns: &[&'static str]) -> Result<(), FitError> {
        match columns.iter().find(|c| !self.columns.contains_key(**c)) {
            Some(column) => {
                Err(FitError::MissingColumn { path: self.path.clone(), column, found: self.header.clone() })
            }
            None => Ok(()),
        }
    }

    /// The cell's text; empty where the row or the header does not have it.
    fn text<'a>(&self, row: &'a csv::StringRecord, column: &str) -> &'a str {
        self.columns.get(column).and_then(|&i| row.get(i)).unwrap_or("")
    }

    fn bad(&self, line: u64, column: &'static str, found: &str, allowed: &'static str) -> FitError {
        FitError::BadValue { path: self.path.clone(), line, column, found: found.into(), allowed }
    }

    /// A number that passes `accept`, or none for an empty cell.
    fn number(
        &self,
        line: u64,
        row: &csv::StringRecord,
        column: &'static str,
        allowed: &'static str,
        accept: fn(f64) -> bool,
    ) -> Result<Option<f64>, FitError> {
        let text = self.text(row, column);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(value) if accept(value) => Ok(Some(value)),
            _ => Err(self.bad(line, column, text, allowed)),
        }
    }

    fn positive(
        &self,
        line: u64,
        row: &csv::StringRecord,
        column: &'static str,
        allowed: &'static str,
    ) -> Result<Option<f64>, FitError> {
        self.number(line, row, column, allowed, |v| v.is_finite() && v > 0.0)
    }
}

/// Reads a study's runs.csv. The columns id, status, params, tokens, flops, flops_convention and one of train_loss and
/// validation_loss must be there; the others may be absent, and unknown ones are ignored.
///
/// # Errors
/// A missing file or column, an empty file, a repeated id, or a cell that is not what its column holds: NaN, a loss that
/// is zero or negative, an unknown status. Runs that did not finish may have a loss that is not a number.
pub fn read_runs(path: impl AsRef<Path>) -> Result<Vec<RunRecord>, FitError> {
    let table = Table::read(path.as_ref(), "run")?;
    table.require(&["id", "status", "params", "tokens", "flops", "flops_convention"])?;
    if !table.columns.contains_key("train_loss") {
        table.require(&["validation_loss"])?;
    }
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut runs = Vec::with_capacity(table.rows.len());
    for (line, row) in &table.rows {
        let line = *line;
        let id = table.text(row, "id").to_string();
        if id.is_empty() {
            return Err(table.bad(line, "id", "", "a name for the run"));
        }
        if let Some(&first) = lines.get(&id) {
            return Err(FitError::RepeatedId { path: table.path, line, first, id });
        }
        lines.insert(id.clone(), line);
        let word = table.text(row, "status");
        let status = RunStatus::from_name(word).ok_or_else(|| {
            table.bad(line, "status", word, "finished, diverged, failed, interrupted or pending")
        })?;
        let needed = |column: &'static str| {
            table.positive(line, row, column, POSITIVE)?.ok_or_else(|| table.bad(line, column, "", POSITIVE))
        };
        let loss = |column: &'static str| match status {
            RunStatus::Finished => table.positive(line, row, column, LOSS),
            _ => Ok(table
                .number(line, row, column, "a number", |_| true)?
                .filter(|v| v.is_finite() && *v > 0.0)),
        };
        let seed = match table.text(row, "seed") {
            "" => None,
            text => Some(text.parse().map_err(|_| table.bad(line, "seed", text, "a whole number from 0"))?),
        };
        runs.push(RunRecord {
            size: table.text(row, "size").to_string(),
            status,
            params: needed("params")?,
            params_non_embedding: table.positive(line, row, "params_non_embedding", POSITIVE)?,
            tokens: needed("tokens")?,
            flops: needed("flops")?,
            flops_convention: table.text(row, "flops_convention").to_string(),
            budget: table.positive(line, row, "budget", POSITIVE)?,
            seed,
            train_loss: loss("train_loss")?,
            validation_loss: loss("validation_loss")?,
            reason: table.text(row, "reason").to_string(),
            id,
        });
    }
    Ok(runs)
}

/// The shortest text that reads back as the same number; whole numbers below 2^53 without exponent.
fn cell(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 9.0e15 { format!("{value}") } else { format!("{value:?}") }
}

/// Writes runs.csv, all columns, through a temporary file that is renamed into place.
///
/// # Errors
/// When the file cannot be written.
pub fn write_runs(path: impl AsRef<Path>, runs: &[RunRecord]) -> Result<(), FitError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let csv_error = |e: csv::Error| FitError::Csv { path: name.clone(), message: e.to_string() };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(RUN_COLUMNS).map_err(csv_error)?;
    let optional = |v: Option<f64>| v.map(cell).unwrap_or_default();
    for run in runs {
        writer
            .write_record([
                run.id.clone(),
                run.size.clone(),
                run.status.name().to_string(),
                cell(run.params),
                optional(run.params_non_embedding),
                cell(run.tokens),
                cell(run.flops),
                run.flops_convention.clone(),
                optional(run.budget),
                run.seed.map(|s| s.to_string()).unwrap_or_default(),
                optional(run.train_loss),
                optional(run.validation_loss),
                run.reason.clone(),
            ])
            .map_err(csv_error)?;
    }
    let bytes =
        writer.into_inner().map_err(|e| FitError::Csv { path: name.clone(), message: e.to_string() })?;
    let temporary = path.with_extension("csv.partial");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|source| FitError::File { path: name, source })
}

/// Reads the metrics.csv of the run with this id. Losses that are not numbers, as a diverging run writes them, become
/// gaps, and so does a last row that was cut short by a kill.
///
/// # Errors
/// A missing file or column (step, tokens, flops, train_loss), no rows, or a cell that is not a number.
pub fn read_curve(path: impl AsRef<Path>, run: &str) -> Result<Curve, FitError> {
    let table = Table::read(path.as_ref(), "logged step")?;
    table.require(&["step", "tokens", "flops", "train_loss"])?;
    let width = table.columns.len();
    let last = table.rows.len() - 1;
    let mut points = Vec::with_capacity(table.rows.len());
    for (i, (line, row)) in table.rows.iter().enumerate() {
        if i == last && i > 0 && row.len() < width {
            break;
        }
        let needed = |column: &'static str| {
            table
                .number(*line, row, column, "a number from 0", |v| v.is_finite() && v >= 0.0)?
                .ok_or_else(|| table.bad(*line, column, "", "a number from 0"))
        };
        let value = |column: &'static str| {
            Ok::<_, FitError>(
                table.number(*line, row, column, "a number", |_| true)?.filter(|v| v.is_finite()),
            )
        };
        points.push(CurvePoint {
            step: needed("step")? as u64,
            tokens: needed("tokens")?,
            flops: needed("flops")?,
            train_loss: value("train_loss")?,
            validation_loss: value("validation_loss")?,
            lr: value("lr")?,
            grad_norm: value("grad_norm")?,
        });
    }
    Ok(Curve { run: run.to_string(), points })
}
