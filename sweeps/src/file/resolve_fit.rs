//! The `[fit]` table: the options of `isoflop fit` by their names, checked by the fit's own rules.

use super::error::Source;
use super::resolve::Checked;
use super::schema::FitTable;
use crate::fit::{Asked, FitError, FitOptions};
use serde_spanned::Spanned;
use std::ops::Range;

pub(super) fn fit(source: &Source<'_>, table: &FitTable) -> Checked<FitOptions> {
    let asked = Asked {
        approaches: value(&table.approaches),
        form: value(&table.form),
        fix_e: value(&table.fix_e),
        tie_exponents: value(&table.tie_exponents).unwrap_or(false),
        also: table.also.clone(),
        objective: table.objective,
        delta: value(&table.delta),
        starts: table.starts,
        minimum: table.minimum,
        interval: value(&table.interval).unwrap_or_default(),
        stratify: table.stratify,
        seed_weights: table.seed_weights,
        bootstrap: value(&table.bootstrap),
        level: value(&table.level),
        seed: table.seed,
        loss: table.loss,
        params: table.params,
        targets: value(&table.targets),
    };
    asked.over(FitOptions::default()).map_err(|error| match error {
        FitError::BadOption { option, found, allowed } => {
            source.bad_value(place(table, option), &format!("fit.{option}"), found, allowed)
        }
        other => source.error(0..0, "fit", other.to_string(), None),
    })
}

fn value<T: Clone>(given: &Option<Spanned<T>>) -> Option<T> {
    given.as_ref().map(|v| v.get_ref().clone())
}

/// Where the option of this name is written.
fn place(table: &FitTable, option: &str) -> Range<usize> {
    fn span<T>(given: &Option<Spanned<T>>) -> Option<Range<usize>> {
        given.as_ref().map(Spanned::span)
    }
    let found = match option {
        "approaches" => span(&table.approaches),
        "form" => span(&table.form),
        "fix_e" => span(&table.fix_e),
        "tie_exponents" => span(&table.tie_exponents),
        "delta" => span(&table.delta),
        "interval" => span(&table.interval),
        "bootstrap" => span(&table.bootstrap),
        "level" => span(&table.level),
        "targets" => span(&table.targets),
        _ => None,
    };
    found.unwrap_or_default()
}
