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

/// Of very large sets, evenly chosen runs stand for all: those asked about and those that may be the nearest.
pub(crate) const ASKED: usize = 1000;
pub(crate) const NEIGHBOURS: usize = 20_000;

/// Runs that are held out without budgets, if so many are at hand.
const HELD: usize = 3;

/// The samples of the largest budget and the others. Without budgets those with more than half the largest compute are held
/// out, or more than a quarter or an eighth where that is fewer than three, if these are a fifth of all at most.
pub(crate) fn top(samples: &[Sample]) -> (Vec<Sample>, Vec<Sample>) {
    let (held, kept) = top_places(samples);
    let pick = |places: Vec<usize>| places.into_iter().map(|i| samples[i].clone()).collect();
    (pick(held), pick(kept))
}

/// As [`top`], the places of both.
pub(crate) fn top_places(samples: &[Sample]) -> (Vec<usize>, Vec<usize>) {
    let top = samples.iter().map(|s| s.flops).fold(0.0, f64::max);
    let above = |share: f64| samples.iter().filter(|s| s.flops > share * top).count();
    let few = |share: &f64| above(*share) * 5 <= samples.len();
    let enough = |share: &f64| above(*share) >= HELD;
    let share = [0.5, 0.25, 0.125].into_iter().find(|share| enough(share)).filter(few).unwrap_or(0.5);
    let mut is_held: Vec<bool> = samples.iter().map(|s| s.flops > share * top).collect();
    if let Some(budget) = budgets(samples).pop().filter(|b| b.flops > 0.5 * top) {
        is_held.fill(false);
        budget.members.iter().for_each(|&i| is_held[i] = true);
    }
    (0..samples.len()).partition(|&i| is_held[i])
}

/// Fits approach 3 without the runs of [`top`] and predicts them. None when too few runs remain.
pub(crate) fn held_out(samples: &[Sample], options: &FitOptions) -> Option<HeldOut> {
    let (held, kept) = top(samples);
    parametric::possible(&kept).ok()?;
    let options = FitOptions { starts: Starts::Projection, ..options.clone() };
    let law = parametric::solve(&kept, &options)?.law;
    let every = |n: usize, most: usize| n.div_ceil(most);
    let near: Vec<&Sample> = kept.iter().step_by(every(kept.len(), NEIGHBOURS)).collect();
    let asked: Vec<&Sample> = held.iter().step_by(every(held.len(), ASKED)).collect();
    let (mut error, mut baseline_error) = (0.0, 0.0);
    for run in &asked {
        let distance =
            |s: &Sample| (s.params / run.params).ln().powi(2) + (s.tokens / run.tokens).ln().powi(2);
        let nearest = near.iter().min_by(|p, q| distance(p).total_cmp(&distance(q)))?;
        error += (law.loss(run.params, run.tokens)? / run.loss - 1.0).abs();
        baseline_error += (nearest.loss / run.loss - 1.0).abs();
    }
    let flops = held.iter().fold([f64::INFINITY, 0.0f64], |m, s| [m[0].min(s.flops), m[1].max(s.flops)]);
    let n = asked.len() as f64;
    Some(HeldOut { flops, n: held.len(), error: error / n, baseline_error: baseline_error / n })
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

/// Approach 3 without these samples, given in increasing order.
pub(crate) fn fit_without(
    samples: &[Sample],
    outliers: &[usize],
    flops_per_param_token: f64,
    grid: &[f64],
    options: &FitOptions,
) -> Option<Fit> {
    let mut kept = samples.to_vec();
    let mut i = 0;
    kept.retain(|_| {
        i += 1;
        outliers.binary_search(&(i - 1)).is_err()
    });
    parametric::possible(&kept).ok()?;
    let options = FitOptions { starts: Starts::Projection, profile: false, ..options.clone() };
    parametric::fit(&kept, flops_per_param_token, grid, &options)
}

/// Shares of embeddings in the smallest and the largest model, and the exponent a when N counts no embeddings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WithoutEmbeddings {
    pub shares: [f64; 2],
    pub a: f64,
}

/// The law refitted with N without embeddings, where small models are embeddings to more than a fifth and large ones are
/// not. `without` holds that N for each sample.
pub(crate) fn embeddings(
    samples: &[Sample],
    without: Option<Vec<f64>>,
    options: &FitOptions,
) -> Option<WithoutEmbeddings> {
    let without = without?;
    let share = |i: usize| 1.0 - without[i] / samples[i].params;
    let by_size = |p: &usize, q: &usize| samples[*p].params.total_cmp(&samples[*q].params);
    let shares = [share((0..samples.len()).min_by(by_size)?), share((0..samples.len()).max_by(by_size)?)];
    if shares[0] < 0.2 || shares[0] - shares[1] < 0.1 || without.iter().any(|n| n.is_nan() || *n <= 0.0) {
        return None;
    }
    let counted: Vec<Sample> =
        samples.iter().zip(&without).map(|(s, &params)| Sample { params, ..s.clone() }).collect();
    parametric::possible(&counted).ok()?;
    let options = FitOptions { starts: Starts::Projection, ..options.clone() };
    let a = parametric::solve(&counted, &options)?.law.exponents()?.a;
    Some(WithoutEmbeddings { shares, a })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of 1, 2, 4, ... FLOPs.
    fn doubling(n: usize) -> Vec<Sample> {
        let run = |record: usize| {
            let flops = 2f64.powi(record as i32);
            Sample { record, params: flops, tokens: 1.0, flops, budget: None, loss: 3.0, weight: 1.0 }
        };
        (0..n).map(run).collect()
    }

    #[test]
    fn three_runs_are_held_out_where_they_are_few_of_many() {
        let held = |n: usize| top_places(&doubling(n)).0;
        assert_eq!(held(20), [17, 18, 19]);
        // Three of ten would be too many to fit without.
        assert_eq!(held(10), [9]);
        let mut equal = doubling(20);
        equal[3..].iter_mut().for_each(|s| s.flops = 1e6);
        assert_eq!(top_places(&equal).0, (3..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_budget_is_held_out_whole() {
        let mut samples = doubling(20);
        for (i, s) in samples.iter_mut().enumerate() {
            s.flops = if i < 12 { 1e18 } else { 1e19 };
            s.budget = Some(s.flops);
        }
        assert_eq!(top_places(&samples).0, (12..20).collect::<Vec<_>>());
    }
}
