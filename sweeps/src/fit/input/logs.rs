//! Tables with several steps of each run, as loggers export them: the last step is the run, all steps are its curve.

use super::columns::{Columns, Role};
use super::error::InputError;
use super::numbers::{Cell, Kind, parse};
use super::table::Table;
use crate::fit::records::{Curve, CurvePoint};
use std::collections::HashMap;

/// The rows of one run, first step first.
#[derive(Debug)]
pub(crate) struct Log {
    pub rows: Vec<usize>,
}

/// Groups rows by run; none when the table has a row for each run, or no steps.
///
/// # Errors
/// A step that is no number.
pub(crate) fn logs(table: &Table, columns: &Columns) -> Result<Option<Vec<Log>>, InputError> {
    let (Some(run), Some(step)) = (columns.get(Role::Run), columns.get(Role::Step)) else { return Ok(None) };
    if columns.finals {
        return Ok(None);
    }
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for row in 0..table.len() {
        let place = *index.entry(table.cell(row, run)).or_insert_with(|| {
            found.push(Vec::new());
            found.len() - 1
        });
        found[place].push(row);
    }
    if found.len() == table.len() {
        return Ok(None);
    }
    let at = |row: usize| match parse(table.cell(row, step), Kind::Count) {
        Ok(Cell::Number(at)) => Ok((at, row)),
        _ => Err(table.bad(row, step, "the number of the step")),
    };
    let logs = found.into_iter().map(|rows| {
        let mut rows = rows.into_iter().map(at).collect::<Result<Vec<_>, _>>()?;
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Log { rows: rows.into_iter().map(|r| r.1).collect() })
    });
    logs.collect::<Result<_, _>>().map(Some)
}

impl Log {
    /// The rows in the order in which cells are looked for: the last with a loss, then the others from the end.
    pub fn preferred(&self, table: &Table, columns: &Columns) -> Vec<usize> {
        let losses: Vec<usize> =
            [Role::Loss, Role::TrainLoss].into_iter().filter_map(|role| columns.get(role)).collect();
        let has_loss = |row: &&usize| {
            losses.iter().take(1).any(|&c| parse(table.cell(**row, c), Kind::Loss) != Ok(Cell::Empty))
        };
        let last = self.rows.iter().rev().find(has_loss).or(self.rows.last()).copied();
        let others = self.rows.iter().rev().copied().filter(|row| Some(*row) != last);
        last.into_iter().chain(others).collect()
    }

    /// The curve of a run with these parameters; none where tokens or FLOPs do not grow with the steps.
    ///
    /// # Errors
    /// A cell that is no number.
    pub fn curve(
        &self,
        table: &Table,
        columns: &Columns,
        run: &str,
        params: f64,
        flops_per_param_token: f64,
    ) -> Result<Option<Curve>, InputError> {
        let number = |row: usize, role: Role, kind: Kind| {
            let Some(column) = columns.get(role) else { return Ok(None) };
            let scale = columns.scale.get(&role).copied().unwrap_or(1.0);
            match parse(table.cell(row, column), kind) {
                Ok(Cell::Number(v)) => Ok(Some(v * scale)),
                Ok(_) => Ok(None),
                Err(allowed) => Err(table.bad(row, column, allowed)),
            }
        };
        let k = flops_per_param_token;
        let mut points: Vec<CurvePoint> = Vec::with_capacity(self.rows.len());
        for &row in &self.rows {
            let (tokens, flops) =
                (number(row, Role::Tokens, Kind::Count)?, number(row, Role::Flops, Kind::Count)?);
            let (tokens, flops) = match (tokens, flops) {
                (Some(d), Some(c)) => (d, c),
                (Some(d), None) => (d, k * params * d),
                (None, Some(c)) => (c / (k * params), c),
                (None, None) => continue,
            };
            points.push(CurvePoint {
                step: number(row, Role::Step, Kind::Count)?.unwrap_or(0.0) as u64,
                tokens,
                flops,
                train_loss: number(row, Role::TrainLoss, Kind::Loss)?,
                validation_loss: number(row, Role::Loss, Kind::Loss)?,
                lr: None,
                grad_norm: None,
            });
        }
        let grows = points.len() >= 2 && points.windows(2).all(|p| p[1].flops > p[0].flops);
        Ok(grows.then(|| Curve { run: run.to_string(), points }))
    }
}
