//! Tests of a fit against data it should explain: the largest budget held out, and the law without its outliers.

use super::options::{FitOptions, Starts};
use super::parabola::budgets;
use super::parametric::{self, Sample};
use super::result::{Fit, HeldOut, Params};

/// Residuals beyond this many robust standard deviations, and beyond `LEAST`, are outliers.
const DEVIATIONS: f64 = 5.0;
const LEAST: f64 = 0.005;
/// Robust standard deviations per median absolute deviation of a normal distribution.
const MAD: f64 = 1.4826;

/// Fits approach 3 without the largest budget (without budgets: without the runs of more than half the largest compute)
/// and predicts it. None when too few runs remain.
pub(crate) fn held_out(samples: &[Sample], options: &FitOptions) -> Option<HeldOut> {
    let top = samples.iter().map(|s| s.flops).fold(0.0, f64::max);
    let by_budget = budgets(samples).pop().filter(|b| b.flops > 0.5 * top).map(|b| b.members);
    let is_held = |i: usize| match &by_budget {
        Some(members) => members.contains(&i),
        None => samples[i].flops > 0.5 * top,
    };
    let (held, kept): (Vec<_>, Vec<_>) = (0..samples.len()).partition(|&i| is_held(i));
    let kept: Vec<Sample> = kept.into_iter().map(|i| samples[i].clone()).collect();
    parametric::possible(&kept).ok()?;
    let options = FitOptions { starts: Starts::Projection, ..options.clone() };
    let law = parametric::solve(&kept, &options)?.law;
    let (mut error, mut baseline_error) = (0.0, 0.0);
    let mut flops = [f64::INFINITY, 0.0f64];
    for run in held.iter().map(|&i| &samples[i]) {
        let distance =
            |s: &Sample| (s.params / run.params).ln().powi(2) + (s.tokens / run.tokens).ln().powi(2);
        let nearest = kept.iter().min_by(|p, q| distance(p).total_cmp(&distance(q)))?;
        error += (law.loss(run.params, run.tokens)? / run.loss - 1.0).abs();
        baseline_error += (nearest.loss / run.loss - 1.0).abs();
        flops = [flops[0].min(run.flops), flops[1].max(run.flops)];
    }
    let n = held.len();
    Some(HeldOut { flops, n, error: error / n as f64, baseline_error: baseline_error / n as f64 })
}

/// Indices of the samples far from the law. None when there are fewer than 8 samples or more than a fifth are far:
/// then it is the law that does not fit.
pub(crate) fn outliers(samples: &[Sample], law: &Params) -> Vec<usize> {
    if samples.len() < 8 {
        return Vec::new();
    }
    let residuals = parametric::residuals(samples, law);
    let centre = median(residuals.clone());
    let spread = MAD * median(residuals.iter().map(|r| (r - centre).abs()).collect());
    let limit = (DEVIATIONS * spread).max(LEAST);
    let far: Vec<usize> = (0..samples.len()).filter(|&i| (residuals[i] - centre).abs() > limit).collect();
    if far.len() * 5 > samples.len() { Vec::new() } else { far }
}

/// Approach 3 without these samples.
pub(crate) fn fit_without(
    samples: &[Sample],
    outliers: &[usize],
    flops_per_param_token: f64,
    grid: &[f64],
    options: &FitOptions,
) -> Option<Fit> {
    let kept: Vec<Sample> =
        (0..samples.len()).filter(|i| !outliers.contains(i)).map(|i| samples[i].clone()).collect();
    parametric::possible(&kept).ok()?;
    let options = FitOptions { starts: Starts::Projection, profile: false, ..options.clone() };
    parametric::fit(&kept, flops_per_param_token, grid, &options)
}

/// The middle value; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}
