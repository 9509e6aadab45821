//! Everything that can be wrong with the input of a fit, each with a message that says what to change.

use thiserror::Error;

/// Why a runs.csv or metrics.csv could not be read or written, or why its runs cannot be fitted.
#[derive(Debug, Error)]
pub enum FitError {
    /// The file could not be opened or written.
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    /// The file is not CSV.
    #[error("{path}: is not a CSV file: {message}")]
    Csv { path: String, message: String },
    /// The file has no header or no row below it.
    #[error("{path}: is empty: expected a header line and one row per {what}")]
    EmptyFile { path: String, what: &'static str },
    /// A column that the fit cannot do without.
    #[error(
        "{path}: has no column `{column}`; it has {found}. Add the column or rename the one that holds it"
    )]
    MissingColumn { path: String, column: &'static str, found: String },
    /// A cell that does not hold what its column holds.
    #[error("{path}: line {line}, column `{column}`: found `{found}`, expected {allowed}")]
    BadValue { path: String, line: u64, column: &'static str, found: String, allowed: &'static str },
    /// Two rows with one id.
    #[error("{path}: line {line}: the id `{id}` is already used on line {first}; every run needs its own id")]
    RepeatedId { path: String, line: u64, first: u64, id: String },
    /// A record made in memory whose field is outside its range.
    #[error("run `{id}`: {field} is {found}, expected {allowed}")]
    BadRecord { id: String, field: &'static str, found: f64, allowed: &'static str },
    /// No runs were given.
    #[error("there are no runs to fit")]
    NoRuns,
    /// Nothing is left once unfinished runs and runs without a loss are put aside.
    #[error(
        "none of the {total} runs can be fitted: {reasons}. Finish some runs, or choose the loss column that is filled in"
    )]
    NoUsableRuns { total: usize, reasons: String },
    /// All usable runs have the same size and length.
    #[error(
        "all {n} usable runs have the same parameters ({params}) and tokens ({tokens}): a law needs runs that differ"
    )]
    NoVariation { n: usize, params: f64, tokens: f64 },
    /// No requested approach has enough runs.
    #[error("no approach can be fitted to these {n} runs: {reasons}")]
    TooFewRuns { n: usize, reasons: String },
    /// An option outside its range.
    #[error("fit option `{option}` is {found}, expected {allowed}")]
    BadOption { option: &'static str, found: String, allowed: &'static str },
}
