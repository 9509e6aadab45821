//! Tables of targets: sizes and lengths, or compute alone, whose loss a law is to predict; with the loss where it is known.

use super::columns::{self, Columns, Role};
use super::error::InputError;
use super::numbers::Cell;
use super::rows::Reader;
use super::source::{RowsLeftOut, file_name};
use super::table::Table;
use super::{ReadOptions, parse};
use std::path::Path;

/// What a loss is wanted of.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The run's name, or its line.
    pub id: String,
    /// Where the table has the column of groups that the fit was asked for.
    pub group: Option<String>,
    /// N and D; none where the table has compute alone, of which the optimum is meant.
    pub size: Option<(f64, f64)>,
    pub flops: f64,
    /// Measured loss.
    pub loss: Option<f64>,
    /// Measured accuracy, a share.
    pub accuracy: Option<f64>,
}

/// A table of targets.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The file's name without its folder.
    pub file: String,
    /// blake3 of the file.
    pub blake3: String,
    pub targets: Vec<Target>,
    pub left_out: RowsLeftOut,
}

/// Reads a table of targets. Of `options.map` the columns that the table has are used. `non_embedding` says which
/// parameters N counts.
///
/// # Errors
/// As for tables of runs, but a loss need not be there, and compute alone is enough.
pub fn read_targets(path: &Path, options: &ReadOptions, non_embedding: bool) -> Result<Targets, InputError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| InputError::File { path: name.clone(), source })?;
    let table = parse::table(&name, &bytes)?;
    let mut found = Vec::new();
    let mut left_out = RowsLeftOut::default();
    if options.tasks.is_empty() {
        found = of_table(&table, options, non_embedding, &mut left_out)?;
    }
    for task in &options.tasks {
        left_out = RowsLeftOut::default();
        let mut reading = task.reading(options)?;
        reading.map = reading.map.of_task_in(&table);
        let of_task = of_table(&table, &reading, non_embedding, &mut left_out)?;
        found.extend(of_task.into_iter().map(|t| Target { group: Some(task.name.clone()), ..t }));
    }
    if found.is_empty() {
        return Err(InputError::NothingLeft { path: name, rows: table.len(), reasons: left_out.summary() });
    }
    Ok(Targets {
        file: file_name(&name),
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        targets: found,
        left_out,
    })
}

fn of_table(
    table: &Table,
    options: &ReadOptions,
    non_embedding: bool,
    left_out: &mut RowsLeftOut,
) -> Result<Vec<Target>, InputError> {
    let map = options.map.known_to(table);
    let columns: Columns = columns::resolve(table, &map, false)?;
    let reader = Reader::new(table, &columns, options);
    reader.derived()?;
    let mut targets = Vec::new();
    for row in 0..table.len() {
        let size = match reader.size(&[row])? {
            Ok(size) => size,
            Err(reason) => {
                left_out.add(reader.id(row), reason, reason.to_string());
                continue;
            }
        };
        let role = if columns.get(Role::Loss).is_some() { Role::Loss } else { Role::TrainLoss };
        let loss = match reader.loss(&[row], role)? {
            Cell::Number(loss) => Some(loss),
            _ => None,
        };
        let params = if non_embedding { size.params_non_embedding.or(size.params) } else { size.params };
        targets.push(Target {
            id: reader.id(row),
            group: columns.get(Role::Group).map(|column| table.cell(row, column).to_string()),
            size: params.zip(size.tokens),
            flops: size.flops,
            loss,
            accuracy: reader.accuracy(&[row])?,
        });
    }
    Ok(targets)
}
