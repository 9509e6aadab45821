//! The runs that a fit.json was made from: found beside it or where a user says, and recognised by their hash.

use super::error::ProposeError;
use crate::fit::input::{ColumnMap, InputError, ReadOptions, Source, read_file};
use crate::fit::{FitDocument, RunRecord, read_runs};
use std::path::{Path, PathBuf};

/// The runs of a fit, and the group of each where there are groups.
#[derive(Debug, Clone, Default)]
pub struct FittedRuns {
    pub runs: Vec<RunRecord>,
    pub groups: Vec<String>,
}

impl FittedRuns {
    /// Those of one group; all where there are none.
    pub fn of_group(&self, group: Option<&str>) -> Vec<RunRecord> {
        let wanted = |i: usize| group.is_none() || self.groups.get(i).map(String::as_str) == group;
        self.runs.iter().enumerate().filter(|(i, _)| wanted(*i)).map(|(_, run)| run.clone()).collect()
    }
}

/// The runs that `document`, read from `fit`, was made from: `given`, a table or a study, or the file of that name beside
/// the fit. A table is read as it was for the fit unless `reading` has a map of its own.
///
/// # Errors
/// When there is no such file, it is another one, or cannot be read.
pub fn of_fit(
    document: &FitDocument,
    fit: &Path,
    given: Option<&Path>,
    reading: &ReadOptions,
) -> Result<FittedRuns, ProposeError> {
    let source = &document.inputs.source;
    let path = match given {
        Some(dir) if dir.is_dir() => dir.join("runs.csv"),
        Some(file) => file.to_path_buf(),
        None => beside(fit, source)?,
    };
    let name = path.display().to_string();
    let bytes = std::fs::read(&path).map_err(|source| InputError::File { path: name, source })?;
    if blake3::hash(&bytes).to_hex().as_str() != source.blake3 {
        return Err(ProposeError::OtherTable { runs: path, fit: fit.to_path_buf() });
    }
    if source.is_study() {
        return Ok(FittedRuns { runs: read_runs(&path)?, groups: Vec::new() });
    }
    let mut reading = reading.clone();
    if reading.map == ColumnMap::default() && source.layout == "mapped" {
        let columns: Vec<String> =
            source.columns.iter().map(|(role, column)| format!("{role}={column}")).collect();
        reading.map = ColumnMap::parse(columns.iter().map(String::as_str))?;
    }
    let input = read_file(&path, &reading)?;
    Ok(FittedRuns { runs: input.runs, groups: input.groups })
}

fn beside(fit: &Path, source: &Source) -> Result<PathBuf, ProposeError> {
    let path = fit.with_file_name(&source.file);
    match path.is_file() {
        true => Ok(path),
        false => Err(ProposeError::NoRuns { fit: fit.to_path_buf(), table: source.file.clone() }),
    }
}
