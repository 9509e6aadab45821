//! Where runs came from, for fit.json: the file and its hashes, which column held what, units, conventions, rows left out.

use super::error::InputError;
use super::parse;
use super::table::{RowHashes, TableFormat};
use crate::fit::result::LeftOut;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The layout of a study's own runs.csv.
const STUDY: &str = "isoflop study";
/// Rows left out that are listed one by one; the others are counted.
pub(super) const LISTED: usize = 100;

/// The table that was fitted. Two equal files give equal descriptions wherever they lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name without its folder.
    pub file: String,
    pub format: TableFormat,
    pub bytes: u64,
    /// blake3 of the file.
    pub blake3: String,
    pub rows: RowHashes,
    /// The known layout, `by name` or `mapped`.
    pub layout: String,
    /// What each role was read from.
    pub columns: BTreeMap<String, String>,
    /// What a heading such as `tokens (B)` multiplied its column by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scales: BTreeMap<String, f64>,
    /// The unit of each quantity, once read.
    pub units: BTreeMap<String, String>,
    /// What was computed, as `tokens = flops / (6 params)`; empty where the table has all three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<String>,
    /// How isoFLOP budgets were found: `column`, `equal compute` or `none`.
    pub budgets: String,
    /// Runs whose last step was taken, where the table has several rows for a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<usize>,
    /// Rows (in logs: runs) that were not fitted.
    pub left_out: RowsLeftOut,
}

impl Source {
    /// Whether the runs are those of a study.
    pub fn is_study(&self) -> bool {
        self.layout == STUDY
    }

    /// The units every source has.
    pub(crate) fn units() -> BTreeMap<String, String> {
        [
            ("params", "parameters"),
            ("tokens", "tokens"),
            ("flops", "FLOPs"),
            ("loss", "as given; nats per token is meant"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
    }
}

/// What was left out, each with its reason, the first hundred by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowsLeftOut {
    pub count: usize,
    /// How many for each reason.
    pub reasons: BTreeMap<String, usize>,
    pub listed: Vec<LeftOut>,
}

impl RowsLeftOut {
    /// Counts one under `reason`, and lists it with `why`, which may say more.
    pub(crate) fn add(&mut self, id: String, reason: &str, why: String) {
        self.count += 1;
        *self.reasons.entry(reason.to_string()).or_default() += 1;
        if self.listed.len() < LISTED {
            self.listed.push(LeftOut { id, why });
        }
    }

    /// `3 no loss, 2 diverged`.
    pub(crate) fn summary(&self) -> String {
        let each: Vec<String> = self.reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
        each.join(", ")
    }
}

/// The name without folders.
pub(crate) fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_string(), |n| n.to_string_lossy().into_owned())
}

/// Describes the runs.csv of a study, whose columns are this tool's own.
///
/// # Errors
/// When the file cannot be read or is no table.
pub fn of_study(path: &Path) -> Result<Source, InputError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| InputError::File { path: name.clone(), source })?;
    let table = parse::table(&name, &bytes)?;
    let columns = table.columns.iter().map(|c| (c.clone(), c.clone())).collect();
    Ok(Source {
        file: file_name(&name),
        format: table.format,
        bytes: bytes.len() as u64,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        rows: table.hashes(),
        layout: STUDY.into(),
        columns,
        scales: BTreeMap::new(),
        units: Source::units(),
        derived: Vec::new(),
        budgets: "column".into(),
        logs: None,
        left_out: RowsLeftOut::default(),
    })
}
