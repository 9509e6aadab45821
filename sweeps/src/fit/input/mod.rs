//! Tables of runs that someone hands over: any CSV, TSV or JSON file of sizes, tokens or compute, and losses.
//!
//! [`read_file`] finds the columns, reads the numbers, derives what is missing by a named convention, and says what it left
//! out. Nothing is dropped without a word: every row is fitted, counted in [`Source::left_out`], or the reason of an error.

mod accuracy;
mod budgets;
mod columns;
mod error;
mod json;
mod judge;
mod lines;
mod logs;
mod numbers;
mod parse;
mod rows;
mod source;
pub(crate) mod study;
mod table;
mod targets;

pub use accuracy::Task;
pub use columns::ColumnMap;
pub use error::InputError;
pub use numbers::above_zero as count;
pub use source::{RowsLeftOut, Source, of_study};
pub use table::{RowHashes, TableFormat};
pub use targets::{Target, Targets, read_targets};

use super::records::{Curve, RunRecord};
use super::result::Warning;
use isoflop_compiler::count::Convention;
use std::path::Path;

/// How a table is to be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadOptions {
    pub map: ColumnMap,
    /// How the table's FLOPs were counted, or are to be where it has none; `6nd` unless given.
    pub convention: Option<Convention>,
    /// Tokens in the vocabulary: a loss above its logarithm is worse than a uniform guess.
    pub vocab_size: Option<f64>,
    /// Tasks side by side in a table with a row for each run, each read as a group.
    pub tasks: Vec<Task>,
    /// Whether accuracies are in percent.
    pub percent: bool,
}

/// What a table holds.
#[derive(Debug, Clone)]
pub struct Input {
    /// The rows that can be fitted.
    pub runs: Vec<RunRecord>,
    /// The group of each run; empty without a column of groups.
    pub groups: Vec<String>,
    /// The accuracy of each run, a share from 0 to 1; empty where no run has one.
    pub accuracies: Vec<Option<f64>>,
    /// Where a table has several steps of a run.
    pub curves: Vec<Curve>,
    pub source: Source,
    pub warnings: Vec<Warning>,
}

impl Input {
    /// Whether the runs have a validation loss, or one that is not said to be of training.
    pub fn has_validation_loss(&self) -> bool {
        self.runs.iter().any(|r| r.validation_loss.is_some())
    }

    /// Whether parameters are counted without embeddings only.
    pub fn only_non_embedding(&self) -> bool {
        !self.source.columns.contains_key("params")
            && self.source.columns.contains_key("params_non_embedding")
    }
}

/// Reads a table of runs.
///
/// # Errors
/// When the file cannot be read, is no table, has no column for a role or several, or a cell that is not what its column
/// holds; with line, column, what was found and what is allowed.
pub fn read_file(path: &Path, options: &ReadOptions) -> Result<Input, InputError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| InputError::File { path: name.clone(), source })?;
    read_bytes(&name, &bytes, options)
}

/// Reads a table of runs that is in memory; `path` is for messages.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(path: &str, bytes: &[u8], options: &ReadOptions) -> Result<Input, InputError> {
    let table = parse::table(path, bytes)?;
    if !options.tasks.is_empty() {
        return accuracy::read_tasks(&table, bytes, options);
    }
    let columns = columns::resolve(&table, &options.map, true)?;
    rows::read(&table, &columns, bytes, options)
}
