//! What a careful reader of a table would point out before fitting it, as warnings with a number.

use super::columns::{Columns, Role};
use super::source::RowsLeftOut;
use super::table::{Table, listed};
use crate::fit::records::RunRecord;
use crate::fit::result::{Warning, WarningCode};
use std::collections::BTreeMap;

/// C / (N D) of one convention differs between sizes by less than this factor.
const ONE_CONVENTION: f64 = 1.25;
/// The logarithm of the largest vocabularies in use, 2^18: no trained model has a larger loss in nats.
const ANY_GUESS: f64 = 12.477;

/// The middle value; 0 of nothing.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (q * values.len().saturating_sub(1) as f64).round() as usize;
    values.get(at).copied().unwrap_or(0.0)
}

/// Rows, or runs of a table of logs, that are not fitted.
pub(crate) fn rows_left_out(left_out: &RowsLeftOut, rows: usize, logs: Option<usize>) -> Option<Warning> {
    let n = left_out.count;
    (n > 0).then(|| Warning {
        code: WarningCode::RunsLeftOut,
        value: n as f64,
        message: format!(
            "{n} of {} left out: {}. If they share a size or a budget, the fit leans on the others.",
            match logs {
                Some(runs) => format!("{runs} runs"),
                None => format!("{rows} rows"),
            },
            left_out.summary()
        ),
    })
}

/// Words of a status column that are not known; their rows were taken as finished.
pub(crate) fn unknown_statuses(words: &BTreeMap<String, usize>, table: &Table) -> Option<Warning> {
    let n: usize = words.values().sum();
    let each: Vec<String> = words.keys().take(8).cloned().collect();
    (n > 0).then(|| Warning {
        code: WarningCode::UnknownStatus,
        value: n as f64,
        message: format!(
            "{n} rows of {} have a status that is not known ({}) and were taken as finished. Write finished, running, failed, diverged or pending, or say --map status=none.",
            super::source::file_name(&table.path),
            listed(&each)
        ),
    })
}

/// Several rows of one run are not independent.
pub(crate) fn repeated_runs(rows: usize, repeated: usize) -> Option<Warning> {
    (repeated > 0).then(|| Warning {
        code: WarningCode::RepeatedRuns,
        value: repeated as f64,
        message: format!(
            "{repeated} runs have more than one of the {rows} rows. Every row was fitted as a run of its own; their errors are not independent, so the intervals are too narrow."
        ),
    })
}

/// Compute that is no fixed multiple of parameters times tokens.
pub(crate) fn conventions(runs: &[RunRecord]) -> Option<Warning> {
    let ratios: Vec<f64> = runs.iter().map(|r| r.flops / (r.params * r.tokens)).collect();
    let [low, high] = [0.02, 0.98].map(|q| quantile(ratios.clone(), q));
    (runs.len() >= 3 && high / low > ONE_CONVENTION).then(|| Warning {
        code: WarningCode::MixedConventions,
        value: high / low,
        message: format!(
            "FLOPs are between {low:.3} and {high:.3} times parameters times tokens, a factor of {:.2}: the table mixes ways of counting, or counts attention. Optima assume one factor, {:.3}; recount all runs by one convention to be sure.",
            high / low,
            median(ratios)
        ),
    })
}

/// Losses that no vocabulary in use explains.
pub(crate) fn far_above_any_guess(runs: &[RunRecord]) -> Option<Warning> {
    let above = |r: &&RunRecord| r.validation_loss.or(r.train_loss).is_some_and(|l| l > ANY_GUESS);
    let n = runs.iter().filter(above).count();
    let first = runs.iter().find(above)?;
    Some(Warning {
        code: WarningCode::LossAboveUniform,
        value: n as f64,
        message: format!(
            "{n} of {} losses are above {ANY_GUESS}, what a uniform guess over 262,144 tokens gives ({} is the first): diverged runs, or not nats per token. Give --vocab-size to leave such runs out.",
            runs.len(),
            first.id
        ),
    })
}

/// A column that was taken where others could have been meant.
pub(crate) fn chosen(columns: &Columns, table: &Table) -> Option<Warning> {
    let loss = columns.get(Role::Loss)?;
    (!columns.passed_over.is_empty()).then(|| Warning {
        code: WarningCode::ColumnChosen,
        value: columns.passed_over.len() as f64,
        message: format!(
            "The loss was read from `{}`; {} could be meant too. Choose with --map loss=COLUMN.",
            table.columns[loss],
            listed(&columns.passed_over)
        ),
    })
}
