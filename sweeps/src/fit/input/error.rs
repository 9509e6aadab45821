//! What can be wrong with a table that someone hands over: file, line, column, what was found, what is allowed.

use miette::Diagnostic;
use thiserror::Error;

/// Why a table could not be read.
#[derive(Debug, Error, Diagnostic)]
pub enum InputError {
    #[error("{path}: could not be read")]
    File { path: String, source: std::io::Error },
    /// Not text at all.
    #[error("{path}: is {what}, expected a CSV, TSV or JSON file")]
    #[diagnostic(help("{help}"))]
    NotText { path: String, what: &'static str, help: &'static str },
    #[error("{path}: line {line}: is not UTF-8 text")]
    #[diagnostic(help("write the file in UTF-8, for example with `iconv -f latin1 -t utf8`"))]
    NotUtf8 { path: String, line: usize },
    #[error("{path}: is empty: expected a header line and a row for each run")]
    Empty { path: String },
    #[error("{path}: has a header but no rows; its columns are {columns}")]
    NoRows { path: String, columns: String },
    #[error("{path}: line {line}: found {found} cells where the header has {expected} columns")]
    #[diagnostic(help(
        "a cell that holds the separator {separator:?}, or a decimal comma, must stand in quotes"
    ))]
    Ragged { path: String, line: u64, found: usize, expected: usize, separator: char },
    #[error("{path}: line {line}: a quote that opens in this row is never closed")]
    OpenQuote { path: String, line: u64 },
    #[error("{path}: line {line}: {message}")]
    Csv { path: String, line: u64, message: String },
    #[error("{path}: line {line}: is no JSON object: {message}")]
    #[diagnostic(help("expected one object a line, or one array of objects"))]
    Json { path: String, line: u64, message: String },
    #[error("{path}: has the column `{name}` twice, as columns {first} and {second}")]
    #[diagnostic(help("rename or remove one of them"))]
    DuplicateColumn { path: String, name: String, first: usize, second: usize },
    #[error("{path}: no column for {role} was recognised; it has {columns}")]
    #[diagnostic(help("name it: --map {role}=COLUMN{also}"))]
    MissingColumn { path: String, role: &'static str, columns: String, also: &'static str },
    #[error("{path}: {candidates} could all be {role}; it has {columns}")]
    #[diagnostic(help("choose one: --map {role}={first}"))]
    AmbiguousColumn { path: String, role: &'static str, candidates: String, columns: String, first: String },
    #[error("{path}: --map {role}={name}: there is no such column; it has {columns}")]
    MappedColumn {
        path: String,
        role: &'static str,
        name: String,
        columns: String,
        #[help]
        nearest: Option<String>,
    },
    #[error("--map: found `{found}`, expected ROLE=COLUMN with one of the roles {roles}")]
    BadMap { found: String, roles: String },
    #[error("{path}: line {line}, column `{column}`: found `{found}`, expected {allowed}")]
    BadValue { path: String, line: u64, column: String, found: String, allowed: &'static str },
    #[error(
        "{path}: has no FLOPs, and {convention} FLOPs cannot be counted from parameters and tokens alone"
    )]
    #[diagnostic(help("give a column of FLOPs, or --flops-convention 6nd"))]
    NeedsShapes { path: String, convention: &'static str },
    #[error(
        "{path}: column `{column}` is no budget in FLOPs: its median is {ratio:.3e} of the runs' own compute"
    )]
    #[diagnostic(help("name the column of FLOPs: --map budget=COLUMN, or --map budget=none"))]
    NotABudget { path: String, column: String, ratio: f64 },
    #[error("{path}: line {line}, column `{column}`: found `{found}`, expected an accuracy from 0 to 1")]
    #[diagnostic(help("{help}"))]
    BadAccuracy { path: String, line: u64, column: String, found: String, help: &'static str },
    #[error("{path}: column `{column}` was read as percent, but its largest value is {most}")]
    #[diagnostic(help("these are shares from 0 to 1: leave out --percent"))]
    NotPercent { path: String, column: String, most: f64 },
    #[error(
        "--tasks: found `{found}`, expected NAME=LOSS:ACCURACY or NAME=LOSS:ACCURACY:CHANCE, each name once"
    )]
    #[diagnostic(help("LOSS and ACCURACY are columns, CHANCE is the accuracy of a guess such as 0.25"))]
    BadTask { found: String },
    #[error("--tasks names the columns of every task's loss and accuracy, and --map {role}=.. another")]
    #[diagnostic(help("leave out --map {role}=.., or name one task's columns by --map alone"))]
    TaskAndMap { role: &'static str },
    #[error("{path}: none of its {rows} rows can be fitted: {reasons}")]
    NothingLeft { path: String, rows: usize, reasons: String },
}
