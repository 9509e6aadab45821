//! Accuracies of tasks in tables: a column of its own, or several tasks side by side, each with a column of its loss.

use super::columns::{Columns, Role};
use super::error::InputError;
use super::numbers::{Cell, Kind, parse};
use super::table::{Table, shortened};
use super::{ColumnMap, Input, ReadOptions, columns, rows};

/// What an accuracy may be.
const SHARE: &str = "an accuracy from 0 to 1";
/// Accuracies in percent that are all below this are shares after all.
const ONE_PERCENT: f64 = 0.01;

/// A task of a table that has a row for each run: `--tasks NAME=LOSS:ACCURACY[:CHANCE]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub name: String,
    /// The column of its loss, such as bits per byte of the right answers.
    pub loss: String,
    /// The column of its accuracy.
    pub accuracy: String,
    /// Accuracy of a guess.
    pub chance: Option<f64>,
}

impl Task {
    /// From `NAME=LOSS:ACCURACY` or `NAME=LOSS:ACCURACY:CHANCE`.
    ///
    /// # Errors
    /// Another form, an empty name, or a chance outside [0, 1).
    pub fn parse(text: &str) -> Result<Task, InputError> {
        let bad = || InputError::BadTask { found: shortened(text) };
        let (name, columns) = text.split_once('=').ok_or_else(bad)?;
        let parts: Vec<&str> = columns.split(':').map(str::trim).collect();
        let (loss, accuracy, chance) = match parts.as_slice() {
            [loss, accuracy] => (loss, accuracy, None),
            [loss, accuracy, chance] => {
                let chance: f64 = chance.parse().map_err(|_| bad())?;
                (loss, accuracy, Some(chance).filter(|c| (0.0..1.0).contains(c)))
            }
            _ => return Err(bad()),
        };
        let whole = parts.len() == 2 || chance.is_some();
        if name.trim().is_empty() || loss.is_empty() || accuracy.is_empty() || !whole {
            return Err(bad());
        }
        let [name, loss, accuracy] = [name.trim(), loss, accuracy].map(str::to_string);
        Ok(Task { name, loss, accuracy, chance })
    }

    /// How the table is read for this task alone.
    pub(crate) fn reading(&self, options: &ReadOptions) -> Result<ReadOptions, InputError> {
        let named = options.map.with_task(&self.loss, &self.accuracy);
        let map = named.map_err(|role| InputError::TaskAndMap { role })?;
        Ok(ReadOptions { map, tasks: Vec::new(), ..options.clone() })
    }
}

/// Reads the runs once for every task, each task as a group.
///
/// # Errors
/// As for tables; a task that is named twice.
pub(crate) fn read_tasks(table: &Table, bytes: &[u8], options: &ReadOptions) -> Result<Input, InputError> {
    let mut whole: Option<Input> = None;
    for (i, task) in options.tasks.iter().enumerate() {
        if options.tasks[..i].iter().any(|t| t.name == task.name) {
            return Err(InputError::BadTask { found: format!("{} twice", shortened(&task.name)) });
        }
        let reading = task.reading(options)?;
        let columns = columns::resolve(table, &reading.map, true)?;
        let mut input = rows::read(table, &columns, bytes, &reading)?;
        input.groups = vec![task.name.clone(); input.runs.len()];
        // Names of runs repeat from task to task, so curves would not know theirs.
        input.curves.clear();
        for role in ["loss", "accuracy"] {
            if let Some(column) = input.source.columns.remove(role) {
                input.source.columns.insert(format!("{role} of {}", task.name), column);
            }
        }
        match &mut whole {
            None => whole = Some(input),
            Some(whole) => whole.append(input),
        }
    }
    whole.ok_or_else(|| InputError::BadTask { found: String::new() })
}

impl Input {
    /// Adds the runs of another task of the same table.
    fn append(&mut self, other: Input) {
        self.runs.extend(other.runs);
        self.groups.extend(other.groups);
        self.accuracies.extend(other.accuracies);
        self.source.columns.extend(other.source.columns);
        self.source.scales.extend(other.source.scales);
        let left_out = other.source.left_out;
        self.source.left_out.count += left_out.count;
        for (reason, n) in left_out.reasons {
            *self.source.left_out.reasons.entry(reason).or_default() += n;
        }
        let room = super::source::LISTED.saturating_sub(self.source.left_out.listed.len());
        self.source.left_out.listed.extend(left_out.listed.into_iter().take(room));
        self.warnings.extend(other.warnings);
        let mut seen = std::collections::HashSet::new();
        self.warnings.retain(|w| seen.insert(w.message.clone()));
    }
}

/// What a heading such as `accuracy (%)` multiplies its column by.
pub(crate) fn heading_scale(heading: &str) -> Option<f64> {
    let inside = heading.trim().strip_suffix(')')?.rsplit_once('(')?.1.trim().to_ascii_lowercase();
    matches!(inside.as_str(), "%" | "percent" | "pct").then_some(ONE_PERCENT)
}

/// An accuracy as a share; none where the cell is empty or not a number. `43.2%` is 0.432; `scale` is of other numbers.
///
/// # Errors
/// A word, or an accuracy outside 0 to 1.
pub(crate) fn accuracy(
    table: &Table,
    row: usize,
    column: usize,
    scale: f64,
) -> Result<Option<f64>, InputError> {
    let text = table.cell(row, column);
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), ONE_PERCENT),
        None => (text, scale),
    };
    match parse(number, Kind::Loss) {
        Ok(Cell::Number(v)) if (0.0..=1.0).contains(&(v * scale)) => Ok(Some(v * scale)),
        Ok(Cell::Number(v)) => Err(InputError::BadAccuracy {
            path: table.path.clone(),
            line: table.line(row),
            column: table.columns[column].clone(),
            found: shortened(text),
            help: match () {
                () if scale == 1.0 && (1.0..=100.0).contains(&v) => {
                    "if these are percent, say so with --percent, or name the column `accuracy (%)`"
                }
                () if scale != 1.0 => "percent are from 0 to 100",
                () => "if this column holds no accuracy, say --map accuracy=none",
            },
        }),
        Ok(_) => Ok(None),
        Err(_) => Err(table.bad(row, column, SHARE)),
    }
}

/// Refuses percent that are shares.
pub(crate) fn check(
    accuracies: &[Option<f64>],
    table: &Table,
    column: usize,
    percent: bool,
) -> Result<(), InputError> {
    let most = accuracies.iter().flatten().copied().fold(0.0, f64::max);
    if percent && most > 0.0 && most <= ONE_PERCENT {
        return Err(InputError::NotPercent {
            path: table.path.clone(),
            column: table.columns[column].clone(),
            most: most / ONE_PERCENT,
        });
    }
    Ok(())
}

/// What the accuracies of a table are multiplied by.
pub(crate) fn scale(columns: &Columns, percent: bool) -> f64 {
    let named = columns.scale.get(&Role::Accuracy).copied();
    named.unwrap_or(if percent { ONE_PERCENT } else { 1.0 })
}

impl ColumnMap {
    /// The same with the columns of a task.
    ///
    /// # Errors
    /// A role that the map names too.
    fn with_task(&self, loss: &str, accuracy: &str) -> Result<ColumnMap, &'static str> {
        let mut map = self.clone();
        let own = [
            (Role::Loss, loss),
            (Role::Accuracy, accuracy),
            (Role::TrainLoss, "none"),
            (Role::Group, "none"),
        ];
        match own.into_iter().find(|(role, column)| !map.name(*role, column)) {
            Some((role, _)) => Err(role.name()),
            None => Ok(map),
        }
    }
}
