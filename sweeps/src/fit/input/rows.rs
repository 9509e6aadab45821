//! From cells to runs: each row is a run, the reason of an error, or left out with a reason.

use super::accuracy;
use super::columns::{Columns, Role};
use super::error::InputError;
use super::logs::{Log, logs};
use super::numbers::{COUNT, Cell, Kind, LOSS, parse};
use super::source::{RowsLeftOut, Source, file_name};
use super::table::Table;
use super::{Input, ReadOptions, budgets, judge};
use crate::fit::records::{Curve, RunRecord, RunStatus};
use isoflop_compiler::count::Convention;
use std::collections::{BTreeMap, HashMap};

/// FLOPs of a parameter and token where the convention is `6nd` or `kaplan`.
const SIX: f64 = 6.0;
const POSITIVE: &str = "a number above 0, such as 1500000000, 1.5e9 or 1.5B";
const POSITIVE_LOSS: &str = "a loss above 0, such as 2.745";

/// A run with its accuracy, or why its row is left out: the reason that is counted, and the words.
pub(crate) enum Outcome {
    Run(Box<RunRecord>, Option<f64>),
    LeftOut(&'static str, String),
}

/// Parameters N, tokens D and FLOPs C of a row; N and D are both absent where a table of targets has compute alone.
pub(super) struct Size {
    pub params: Option<f64>,
    pub params_non_embedding: Option<f64>,
    pub tokens: Option<f64>,
    pub flops: f64,
    pub budget: Option<f64>,
}

/// Reads rows by their columns.
pub(super) struct Reader<'a> {
    pub table: &'a Table,
    pub columns: &'a Columns,
    /// The column that names each row's convention, as this tool writes it.
    convention_column: Option<usize>,
    convention: Convention,
    vocab_size: Option<f64>,
    percent: bool,
}

pub(crate) fn read(
    table: &Table,
    columns: &Columns,
    bytes: &[u8],
    options: &ReadOptions,
) -> Result<Input, InputError> {
    let reader = Reader::new(table, columns, options);
    let derived = reader.derived()?;
    let logs = logs(table, columns)?;
    let most = logs.as_ref().map_or(table.len(), Vec::len);
    let mut runs: Vec<RunRecord> = Vec::with_capacity(most);
    let mut rows: Vec<usize> = Vec::with_capacity(most);
    let mut accuracies: Vec<Option<f64>> = Vec::new();
    let mut curves: Vec<Curve> = Vec::new();
    let mut left_out = RowsLeftOut::default();
    let mut keep = |row: usize, outcome: Outcome| match outcome {
        Outcome::Run(run, accuracy) => {
            runs.push(*run);
            accuracies.push(accuracy);
            rows.push(row);
        }
        Outcome::LeftOut(reason, why) => left_out.add(reader.id(row), reason, why),
    };
    match &logs {
        None => {
            for row in 0..table.len() {
                keep(row, reader.run(&[row])?);
            }
        }
        Some(logs) => {
            for log in logs {
                curves.extend(reader.log(log, &mut keep)?);
            }
        }
    }
    if runs.is_empty() {
        let (path, reasons) = (table.path.clone(), left_out.summary());
        return Err(InputError::NothingLeft { path, rows: table.len(), reasons });
    }
    match columns.get(Role::Accuracy) {
        Some(column) if accuracies.iter().any(Option::is_some) => {
            accuracy::check(&accuracies, table, column, accuracy::scale(columns, options.percent) != 1.0)?;
        }
        _ => accuracies.clear(),
    }
    let groups = reader.groups(&rows);
    let named = logs.is_none() && columns.get(Role::Run).is_some();
    let repeated = if named { make_unique(&mut runs) } else { 0 };
    let budgets = reader.budgets(&mut runs)?;
    let mut warnings = Vec::new();
    warnings.extend(judge::rows_left_out(&left_out, table.len(), logs.as_ref().map(Vec::len)));
    warnings.extend(judge::unknown_statuses(&reader.unknown_statuses(&rows), table));
    warnings.extend(judge::repeated_runs(runs.len(), repeated));
    warnings.extend(judge::conventions(&runs));
    warnings.extend(judge::far_above_any_guess(&runs));
    warnings.extend(judge::chosen(columns, table));
    let named = |of: &BTreeMap<Role, usize>| {
        of.iter().map(|(r, i)| (r.name().to_string(), table.columns[*i].clone())).collect()
    };
    let source = Source {
        file: file_name(&table.path),
        format: table.format,
        bytes: bytes.len() as u64,
        blake3: blake3::hash(bytes).to_hex().to_string(),
        rows: table.hashes(),
        layout: columns.layout.to_string(),
        columns: named(&columns.of),
        scales: columns.scale.iter().map(|(r, s)| (r.name().to_string(), *s)).collect(),
        units: Source::units(),
        derived,
        budgets,
        logs: logs.as_ref().map(Vec::len),
        left_out,
    };
    Ok(Input { runs, groups, accuracies, curves, source, warnings })
}

impl<'a> Reader<'a> {
    pub fn new(table: &'a Table, columns: &'a Columns, options: &ReadOptions) -> Self {
        Reader {
            table,
            columns,
            convention_column: table.columns.iter().position(|c| c == "flops_convention"),
            convention: options.convention.unwrap_or(Convention::SixNd),
            vocab_size: options.vocab_size,
            percent: options.percent,
        }
    }

    /// What has to be computed, in words; an error where the convention cannot be computed from a table.
    pub fn derived(&self) -> Result<Vec<String>, InputError> {
        let has = |role| self.columns.get(role).is_some();
        let (total, non_embedding) = (has(Role::Params), has(Role::ParamsNonEmbedding));
        let n = if self.counts_non_embedding() { "params_non_embedding" } else { "params" };
        let (tokens, flops) = (has(Role::Tokens), has(Role::Flops));
        let c = if flops { "flops" } else { "budget" };
        let mut found = Vec::new();
        let by_shape = !flops && tokens && (total || non_embedding);
        if by_shape {
            found.push(format!("flops = 6 {n} tokens"));
        } else if !flops {
            found.push("flops = budget".to_string());
        }
        if !(tokens || total || non_embedding) {
            return Ok(Vec::new());
        }
        if !tokens {
            found.push(format!("tokens = {c} / (6 {n})"));
        } else if !(total || non_embedding) {
            found.push(format!("params = {c} / (6 tokens)"));
        }
        let computed = by_shape || !tokens || !(total || non_embedding);
        let proportional = matches!(self.convention, Convention::SixNd | Convention::Kaplan);
        if computed && !proportional {
            let path = self.table.path.clone();
            return Err(InputError::NeedsShapes { path, convention: self.convention.name() });
        }
        Ok(found)
    }

    /// Whether the FLOPs are 6 times the parameters without embeddings.
    fn counts_non_embedding(&self) -> bool {
        let has = |role| self.columns.get(role).is_some();
        has(Role::ParamsNonEmbedding) && (self.convention == Convention::Kaplan || !has(Role::Params))
    }

    /// The first cell in `rows` that is not empty, with its row and column.
    fn cell(&self, rows: &[usize], role: Role) -> Option<(usize, usize)> {
        let column = self.columns.get(role)?;
        rows.iter().map(|&row| (row, column)).find(|&(row, column)| !self.table.cell(row, column).is_empty())
    }

    /// A count above 0; none where there is none, or it is not a number.
    fn count(&self, rows: &[usize], role: Role) -> Result<Option<f64>, InputError> {
        let Some((row, column)) = self.cell(rows, role) else { return Ok(None) };
        let scale = self.columns.scale.get(&role).copied().unwrap_or(1.0);
        match parse(self.table.cell(row, column), Kind::Count) {
            Ok(Cell::Number(v)) if v > 0.0 && (v * scale).is_finite() => Ok(Some(v * scale)),
            Ok(Cell::Number(_)) => Err(self.table.bad(row, column, POSITIVE)),
            Ok(_) => Ok(None),
            Err(COUNT) => Err(self.table.bad(row, column, POSITIVE)),
            Err(allowed) => Err(self.table.bad(row, column, allowed)),
        }
    }

    pub fn loss(&self, rows: &[usize], role: Role) -> Result<Cell, InputError> {
        let Some(column) = self.columns.get(role) else { return Ok(Cell::Empty) };
        let row = rows[0];
        match parse(self.table.cell(row, column), Kind::Loss) {
            Ok(Cell::Number(v)) if v <= 0.0 => Err(self.table.bad(row, column, POSITIVE_LOSS)),
            Err(LOSS) => Err(self.table.bad(row, column, POSITIVE_LOSS)),
            Err(allowed) => Err(self.table.bad(row, column, allowed)),
            Ok(cell) => Ok(cell),
        }
    }

    /// The accuracy, a share.
    pub fn accuracy(&self, rows: &[usize]) -> Result<Option<f64>, InputError> {
        let Some((row, column)) = self.cell(rows, Role::Accuracy) else { return Ok(None) };
        accuracy::accuracy(self.table, row, column, accuracy::scale(self.columns, self.percent))
    }

    fn status(&self, rows: &[usize]) -> RunStatus {
        let cell = self.cell(rows, Role::Status);
        cell.and_then(|(row, column)| status(self.table.cell(row, column))).unwrap_or(RunStatus::Finished)
    }

    /// The run's name, or its line.
    pub fn id(&self, row: usize) -> String {
        let name = self.columns.get(Role::Run).map_or("", |column| self.table.cell(row, column));
        if name.is_empty() { format!("line {}", self.table.line(row)) } else { name.to_string() }
    }

    /// One run. Cells are looked for in `rows`, the first of which has the loss.
    fn run(&self, rows: &[usize]) -> Result<Outcome, InputError> {
        let row = rows[0];
        let left_out = |reason: &'static str| Ok(Outcome::LeftOut(reason, reason.to_string()));
        match self.status(rows) {
            RunStatus::Finished => {}
            RunStatus::Diverged => return left_out("diverged"),
            RunStatus::Failed => return left_out("failed"),
            RunStatus::Interrupted => return left_out("not finished"),
            RunStatus::Pending => return left_out("not started"),
        }
        let (loss, train_loss) = (self.loss(rows, Role::Loss)?, self.loss(rows, Role::TrainLoss)?);
        let first = if self.columns.get(Role::Loss).is_some() { loss } else { train_loss };
        match first {
            Cell::Empty => return left_out("no loss"),
            Cell::NotANumber => return left_out("loss is not a number"),
            Cell::Number(loss) => {
                let vocab_size = self.count(rows, Role::VocabSize)?.or(self.vocab_size);
                if let Some(v) = vocab_size.filter(|v| loss > v.ln()) {
                    let words = format!(
                        "loss {loss} is above that of a uniform guess over {v} tokens, {:.3}",
                        v.ln()
                    );
                    return Ok(Outcome::LeftOut("worse than a uniform guess", words));
                }
            }
        }
        let size = match self.size(rows)? {
            Ok(size) => size,
            Err(reason) => return left_out(reason),
        };
        let (Some(n), Some(d)) = (size.params, size.tokens) else {
            return left_out("no params, tokens or flops");
        };
        let number = |cell: Cell| if let Cell::Number(v) = cell { Some(v) } else { None };
        let convention = self.convention_column.map(|column| self.table.cell(row, column));
        let convention = convention.filter(|text| !text.is_empty()).unwrap_or(self.convention.name());
        let seed = self.cell(rows, Role::Seed).and_then(|(r, c)| self.table.cell(r, c).parse().ok());
        let accuracy = self.accuracy(rows)?;
        let run = RunRecord {
            id: self.id(row),
            size: String::new(),
            status: RunStatus::Finished,
            params: n,
            params_non_embedding: size.params_non_embedding,
            tokens: d,
            flops: size.flops,
            flops_convention: convention.to_string(),
            budget: size.budget,
            seed,
            train_loss: number(train_loss),
            validation_loss: number(loss),
            reason: String::new(),
        };
        Ok(Outcome::Run(Box::new(run), accuracy))
    }

    /// Parameters, tokens and FLOPs, computed where the table lacks one; or the reason why there are none.
    pub fn size(&self, rows: &[usize]) -> Result<Result<Size, &'static str>, InputError> {
        let has = |role| self.columns.get(role).is_some();
        let has_params = has(Role::Params) || has(Role::ParamsNonEmbedding);
        let total = self.count(rows, Role::Params)?;
        let non_embedding = self.count(rows, Role::ParamsNonEmbedding)?;
        let budget = self.count(rows, Role::Budget)?;
        let d = self.count(rows, Role::Tokens)?;
        let flops = self.count(rows, Role::Flops)?;
        let n = if self.counts_non_embedding() { non_embedding } else { total };
        let computed = !has(Role::Flops) && has(Role::Tokens) && has_params;
        let c = match computed {
            true => None,
            false if has(Role::Flops) => flops,
            false => budget,
        };
        if has_params && n.is_none() {
            return Ok(Err("no params"));
        }
        if has(Role::Tokens) && d.is_none() {
            return Ok(Err("no tokens"));
        }
        if !computed && c.is_none() {
            return Ok(Err(if has(Role::Flops) { "no flops" } else { "no budget" }));
        }
        let (n, d, c) = match (n, d, c) {
            (Some(n), Some(d), Some(c)) => (Some(n), Some(d), c),
            (Some(n), Some(d), None) => (Some(n), Some(d), SIX * n * d),
            (Some(n), None, Some(c)) => (Some(n), Some(c / (SIX * n)), c),
            (None, Some(d), Some(c)) => (Some(c / (SIX * d)), Some(d), c),
            (None, None, Some(c)) => (None, None, c),
            _ => return Ok(Err("no params, tokens or flops")),
        };
        let sound = |v: &f64| v.is_finite() && *v > 0.0;
        if ![n.unwrap_or(1.0), d.unwrap_or(1.0), c].iter().all(sound) {
            return Ok(Err("params, tokens or flops beyond the range of numbers"));
        }
        let params = total.or(n);
        Ok(Ok(Size { params, params_non_embedding: non_embedding, tokens: d, flops: c, budget }))
    }

    /// The run that a log ends with, and its curve.
    fn log(&self, log: &Log, keep: &mut impl FnMut(usize, Outcome)) -> Result<Option<Curve>, InputError> {
        let rows = log.preferred(self.table, self.columns);
        let outcome = self.run(&rows)?;
        let shape = match &outcome {
            Outcome::Run(run, _) => Some((run.id.clone(), run.params, run.flops / (run.params * run.tokens))),
            Outcome::LeftOut(..) => None,
        };
        keep(rows[0], outcome);
        match shape {
            Some((id, params, k)) => log.curve(self.table, self.columns, &id, params, k),
            None => Ok(None),
        }
    }

    fn groups(&self, rows: &[usize]) -> Vec<String> {
        let Some(column) = self.columns.get(Role::Group) else { return Vec::new() };
        rows.iter().map(|&row| self.table.cell(row, column).to_string()).collect()
    }

    /// Words of the status column that say nothing known, with their counts.
    fn unknown_statuses(&self, rows: &[usize]) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        let Some(column) = self.columns.get(Role::Status) else { return found };
        for &row in rows {
            let word = self.table.cell(row, column);
            if !word.is_empty() && status(word).is_none() {
                *found.entry(word.to_string()).or_default() += 1;
            }
        }
        found
    }

    /// How the runs come by their budgets.
    fn budgets(&self, runs: &mut [RunRecord]) -> Result<String, InputError> {
        let Some(column) = self.columns.get(Role::Budget) else {
            return Ok(if budgets::detect(runs) > 0 { "equal compute" } else { "none" }.to_string());
        };
        let ratios = runs.iter().filter_map(|r| Some(r.budget? / r.flops)).collect();
        let ratio = judge::median(ratios);
        if ratio > 0.0 && !(0.2..=5.0).contains(&ratio) {
            let (path, column) = (self.table.path.clone(), self.table.columns[column].clone());
            return Err(InputError::NotABudget { path, column, ratio });
        }
        Ok("column".to_string())
    }
}

/// What a status column's word means; none for a word that is not known.
fn status(word: &str) -> Option<RunStatus> {
    match word.to_ascii_lowercase().as_str() {
        "finished" | "finish" | "done" | "complete" | "completed" | "success" | "succeeded" | "ok" => {
            Some(RunStatus::Finished)
        }
        "diverged" | "nan" | "diverge" => Some(RunStatus::Diverged),
        "failed" | "crashed" | "error" | "oom" | "fail" => Some(RunStatus::Failed),
        "running" | "killed" | "preempted" | "interrupted" | "stopped" | "timeout" | "cancelled"
        | "canceled" | "unfinished" => Some(RunStatus::Interrupted),
        "pending" | "queued" | "planned" => Some(RunStatus::Pending),
        _ => None,
    }
}

/// Gives rows of the same run names of their own. Returns how many runs have more than one row.
fn make_unique(runs: &mut [RunRecord]) -> usize {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut repeated = 0;
    for run in runs {
        let n = seen.entry(run.id.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            repeated += usize::from(*n == 2);
            run.id = format!("{}#{n}", run.id);
        }
    }
    repeated
}
