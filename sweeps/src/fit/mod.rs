//! Scaling laws from finished runs: approaches 1, 2 and 3 of Hoffmann et al. 2022 side by side, with intervals and warnings.
//!
//! [`read_runs`] and [`read_curve`] read a study's runs.csv and metrics.csv, [`input::read_file`] any other table;
//! [`fit_runs`] fits them; a [`FitDocument`] serialises to fit.json. The same input gives the same bytes, on any number
//! of threads.
//!
//! It needs no study directory:
//!
//! ```
//! use isoflop_sweeps::fit::{FitOptions, LossParams, RunRecord, RunStatus, fit_runs};
//!
//! // Five budgets of seven sizes whose losses follow a law.
//! let law = LossParams { e: 1.7, a: 400.0, b: 410.0, alpha: 0.34, beta: 0.28 };
//! let mut runs = Vec::new();
//! for budget in [1e18, 3e18, 1e19, 3e19, 1e20] {
//!     let (best, _) = law.optimum(budget, 6.0);
//!     for multiple in [0.2, 0.35, 0.6, 1.0, 1.7, 2.9, 5.0] {
//!         let params = best * multiple;
//!         let tokens = budget / (6.0 * params);
//!         runs.push(RunRecord {
//!             id: format!("{budget:e}-{multiple}"),
//!             size: String::new(),
//!             status: RunStatus::Finished,
//!             params,
//!             params_non_embedding: None,
//!             tokens,
//!             flops: budget,
//!             flops_convention: "6nd".into(),
//!             budget: Some(budget),
//!             seed: None,
//!             train_loss: None,
//!             validation_loss: Some(law.loss(params, tokens)),
//!             reason: String::new(),
//!         });
//!     }
//! }
//! let options = FitOptions { targets: vec![1e21], bootstrap: 100, ..FitOptions::default() };
//! let report = fit_runs(&runs, &[], &options)?;
//! let fit = report.approach(3).expect("35 runs are enough");
//! // N* grows as C^a with a = beta / (alpha + beta).
//! assert!((fit.exponents.a - 0.28 / 0.62).abs() < 1e-4);
//! // The loss of a model that was not trained, with its interval.
//! let loss = fit.loss_at(1e10, 2e11).expect("approach 3 predicts losses");
//! assert!((loss.value - law.loss(1e10, 2e11)).abs() < 1e-4);
//! # Ok::<(), isoflop_sweeps::fit::FitError>(())
//! ```

mod akima;
pub mod allocate;
mod asked;
pub(crate) mod checks;
pub mod design;
pub mod diagnostics;
mod document;
mod downstream;
mod envelope;
mod error;
pub mod input;
mod intervals;
mod law;
mod nearest;
mod noise;
mod options;
mod parabola;
mod parametric;
mod params;
mod power;
mod predict;
mod records;
mod resamples;
mod result;
pub mod simulate;
mod warnings;

pub use asked::{Asked, IntervalKind, NamedLaw};
pub use document::{DocumentFit, DocumentInputs, DocumentWarning, FitDocument, GroupInputs, fit_input};
pub use downstream::{
    CurvePointAt, Downstream, DownstreamOptimum, DownstreamOptions, DownstreamPoint, HeldOutAccuracy, Sigmoid,
};
pub use error::FitError;
pub use input::study::{read_curve, read_runs, write_runs};
pub use options::{
    DELTA, FitOptions, IntervalMethod, LawForm, LossColumn, MinimumMethod, Objective, ParamCount, Starts,
};
pub use predict::{AccuracyErrors, PredictedAccuracy, Prediction, Predictions, predict};
pub use records::{Curve, CurvePoint, RunRecord, RunStatus};
pub use resamples::Resamples;
pub use result::*;
pub use warnings::{flops as format_flops, human as format_count};

use parametric::Sample;
use std::collections::BTreeSet;

/// Points of the grid on which each law is evaluated.
const GRID: usize = 33;
/// How far beyond the largest run the grid goes.
const BEYOND: f64 = 10.0;

/// Fits the finished runs by the approaches asked for. `curves` are the runs' training curves, needed by approach 1 only.
///
/// # Errors
/// No runs; a record with a number outside its range; nothing finished; all runs alike; too few runs for every approach
/// asked for; an option outside its range. An approach that cannot be fitted while another can is a warning.
pub fn fit_runs(runs: &[RunRecord], curves: &[Curve], options: &FitOptions) -> Result<FitReport, FitError> {
    options.check()?;
    if runs.is_empty() {
        return Err(FitError::NoRuns);
    }
    let (mut samples, left_out) = usable(runs, options)?;
    if samples.is_empty() {
        let reasons = left_out.iter().map(|l| l.why.clone()).collect::<BTreeSet<_>>();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join(", ");
        return Err(FitError::NoUsableRuns { total: runs.len(), reasons });
    }
    let n = samples.len();
    if n == 1 {
        return Err(FitError::TooFewRuns {
            n,
            reasons: "a law needs runs of several sizes and lengths".into(),
        });
    }
    let Sample { params, tokens, .. } = samples[0];
    if samples.iter().all(|s| s.params == params && s.tokens == tokens) {
        return Err(FitError::NoVariation { n, params, tokens });
    }
    let seed_noise = noise::of_repeats(&samples);
    if let Some(noise) = seed_noise.filter(|_| options.seed_weights) {
        noise::weigh(&mut samples, &noise);
    }
    let names: Vec<&str> = samples.iter().map(|s| runs[s.record].id.as_str()).collect();
    let k = checks::median(samples.iter().map(|s| s.flops / (s.params * s.tokens)).collect());
    let inputs = inputs(runs, &samples, left_out, curves.len(), k, options);
    let grid = grid(inputs.flops, &options.targets);

    let sizes = samples.iter().map(|s| s.params.to_bits()).collect::<BTreeSet<_>>().len();
    let mut warnings = warnings::of_inputs(&inputs, sizes);
    let mut fits = Vec::new();
    let mut reasons = Vec::new();
    let (mut held_out, mut without_outliers) = (None, None);
    for approach in 1..=3u8 {
        if !options.approaches.contains(&approach) {
            continue;
        }
        let fitted = match approach {
            1 => envelope::fit(&samples, &names, curves, k, &grid, options),
            2 => parabola::fit(&samples, k, &grid, options).map_err(|(minima, why)| {
                warnings.extend(warnings::of_minima(&minima, false));
                why
            }),
            _ => parametric::possible(&samples).and_then(|()| {
                parametric::fit(&samples, k, &grid, options)
                    .ok_or_else(|| "approach 3 found no start from which it could be fitted".to_string())
            }),
        };
        match fitted {
            Ok(fit) => {
                match approach {
                    1 => warnings.extend(warnings::decaying(&envelope::decaying(&names, curves))),
                    2 => warnings.extend(warnings::of_minima(&fit.minima, true)),
                    _ => {
                        held_out = checks::held_out(&samples, options);
                        without_outliers = outliers(&samples, &names, &fit, k, &grid, options, &mut warnings);
                    }
                }
                warnings.extend(warnings::unidentified(&fit));
                fits.push(fit);
            }
            Err(why) => {
                // Without any curve approach 1 was not meant to run.
                if approach != 1 || !curves.is_empty() {
                    warnings.push(warnings::unavailable(approach, &why));
                }
                reasons.push(why);
            }
        }
    }
    let mut variants = Vec::new();
    for &form in &options.variants {
        match parametric::variant(&samples, form, options) {
            Ok(variant) => variants.push(variant),
            Err(why) => warnings.push(warnings::no_variant(form, &why)),
        }
    }
    if fits.is_empty() {
        return Err(FitError::TooFewRuns { n, reasons: reasons.join("; ") });
    }
    if let Some(law) = fits.iter().find(|f| f.approach == 3 && !f.optimum.is_empty()).map(|f| f.params) {
        for fit in &mut fits {
            fit.bias = match fit.approach {
                1 => envelope::bias(&samples, &names, curves, &law, k),
                2 => parabola::bias(&samples, fit, &law, k, options),
                _ => None,
            };
            warnings.extend(warnings::bias(fit));
        }
    }
    if let Some(fit) = fits.iter().find(|f| f.approach == 3 && options.params == ParamCount::Total) {
        let without = samples.iter().map(|s| runs[s.record].params_non_embedding).collect();
        warnings.extend(
            checks::embeddings(&samples, without, options).and_then(|w| warnings::embeddings(fit, &w)),
        );
    }
    warnings.extend(warnings::disagreements(&fits));
    warnings.extend(warnings::extrapolations(&options.targets, inputs.flops[1]));
    warnings.extend(held_out.as_ref().and_then(warnings::held_out));
    let warnings = warnings::shortened(warnings);
    Ok(FitReport { fits, warnings, held_out, without_outliers, variants, seed_noise, inputs })
}

/// The finished runs with a loss, and why the others are left out.
fn usable(runs: &[RunRecord], options: &FitOptions) -> Result<(Vec<Sample>, Vec<LeftOut>), FitError> {
    const POSITIVE: &str = "a number above 0";
    let (mut samples, mut left_out) = (Vec::new(), Vec::new());
    for (record, run) in runs.iter().enumerate() {
        let check = |field, found: f64| match found.is_finite() && found > 0.0 {
            true => Ok(found),
            false => Err(FitError::BadRecord { id: run.id.clone(), field, found, allowed: POSITIVE }),
        };
        let (field, loss) = match options.loss {
            LossColumn::Validation => ("validation_loss", run.validation_loss),
            LossColumn::Train => ("train_loss", run.train_loss),
        };
        let (counted, params) = match options.params {
            ParamCount::Total => ("params", Some(run.params)),
            ParamCount::NonEmbedding => ("params_non_embedding", run.params_non_embedding),
        };
        let why = match (run.status, loss, params) {
            (RunStatus::Finished, Some(loss), Some(params)) => {
                samples.push(Sample {
                    record,
                    params: check(counted, params)?,
                    tokens: check("tokens", run.tokens)?,
                    flops: check("flops", run.flops)?,
                    budget: run.budget.map(|b| check("budget", b)).transpose()?,
                    loss: check(field, loss)?,
                    weight: 1.0,
                });
                continue;
            }
            (RunStatus::Finished, None, _) => format!("no {field}"),
            (RunStatus::Finished, _, None) => format!("no {counted}"),
            (status, ..) => status.name().to_string(),
        };
        left_out.push(LeftOut { id: run.id.clone(), why });
    }
    Ok((samples, left_out))
}

fn inputs(
    runs: &[RunRecord],
    samples: &[Sample],
    left_out: Vec<LeftOut>,
    curves: usize,
    flops_per_param_token: f64,
    options: &FitOptions,
) -> Inputs {
    let conventions: BTreeSet<_> = samples.iter().map(|s| runs[s.record].flops_convention.clone()).collect();
    let compute = samples.iter().map(|s| s.flops);
    Inputs {
        runs: runs.len(),
        used: samples.len(),
        left_out,
        curves,
        loss: if options.loss == LossColumn::Validation { "validation" } else { "train" }.into(),
        parameters: if options.params == ParamCount::Total { "total" } else { "non-embedding" }.into(),
        flops_conventions: conventions.into_iter().collect(),
        flops_per_param_token,
        flops: compute.fold([f64::INFINITY, 0.0], |m, c| [m[0].min(c), m[1].max(c)]),
        targets: options.targets.clone(),
    }
}

/// Compute at which the laws are evaluated: from the least to ten times the most, the most, and every target.
fn grid([low, high]: [f64; 2], targets: &[f64]) -> Vec<f64> {
    let end = targets.iter().copied().fold(BEYOND * high, f64::max);
    let mut grid: Vec<f64> =
        (0..GRID).map(|i| low * (end / low).powf(i as f64 / (GRID - 1) as f64)).collect();
    grid.extend(targets);
    grid.extend([high, BEYOND * high]);
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    grid
}

/// Finds outliers of approach 3; where there are any, warns and refits without them.
fn outliers(
    samples: &[Sample],
    names: &[&str],
    fit: &Fit,
    k: f64,
    grid: &[f64],
    options: &FitOptions,
    warnings: &mut Vec<Warning>,
) -> Option<Fit> {
    let far = checks::outliers(samples, &fit.params);
    let sound = fit.status.is_sound();
    if far.is_empty() || !sound {
        return None;
    }
    let without = checks::fit_without(samples, &far, k, grid, options)?;
    let named: Vec<String> = far.iter().map(|&i| names[i].to_string()).collect();
    warnings.extend(warnings::outliers(&named, fit, &without));
    Some(without)
}
