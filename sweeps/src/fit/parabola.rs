//! Approach 2: a parabola of the loss in ln N for each isoFLOP budget, and power laws through the minima.
//! Hoffmann et al. 2022, section 3.2; budgets whose minimum is at an end are dropped as by Porian et al. 2024.

use super::akima;
use super::intervals::resampled;
use super::options::{FitOptions, MinimumMethod};
use super::parametric::Sample;
use super::power::{self, Pair};
use super::result::{Bias, Fit, IsoflopMinimum, MinimumFlag, Params};
use nalgebra::{Matrix3, Vector3};
use std::collections::HashSet;

/// Curvatures within this many standard errors of zero do not locate a minimum.
const CLEAR: f64 = 2.0;

/// The runs of one budget, as indices into the samples.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub flops: f64,
    pub members: Vec<usize>,
    /// The same from the smallest size to the largest.
    by_size: Vec<usize>,
}

/// Groups by budget, least first. Runs without a budget belong to none.
pub(crate) fn budgets(samples: &[Sample]) -> Vec<Budget> {
    let mut placed: Vec<(f64, usize)> =
        samples.iter().enumerate().filter_map(|(i, s)| Some((s.budget?, i))).collect();
    placed.sort_by(|p, q| p.0.total_cmp(&q.0).then(p.1.cmp(&q.1)));
    let mut found: Vec<Budget> = Vec::new();
    for (flops, i) in placed {
        // Budgets written with different roundings are one budget.
        match found.last_mut().filter(|b| flops / b.flops - 1.0 < 1e-6) {
            Some(budget) => budget.members.push(i),
            None => found.push(Budget { flops, members: vec![i], by_size: Vec::new() }),
        }
    }
    for budget in &mut found {
        budget.by_size = budget.members.clone();
        budget.by_size.sort_by(|&i, &j| samples[i].params.total_cmp(&samples[j].params));
    }
    found
}

/// Least squares with weights of the budget's losses on 1, x, x^2; none with fewer than three sizes.
fn parabola(
    samples: &[Sample],
    budget: &Budget,
    weights: &[f64],
    k: f64,
    method: MinimumMethod,
) -> Option<IsoflopMinimum> {
    let members: Vec<usize> = budget.members.iter().copied().filter(|&i| weights[i] > 0.0).collect();
    // Each size with its sums of weighted losses and of weights.
    let mut sizes: Vec<(f64, f64, f64)> = Vec::new();
    for &i in budget.by_size.iter().filter(|&&i| weights[i] > 0.0) {
        let (size, w) = (samples[i].params, weights[i]);
        if sizes.last().is_none_or(|last| last.0 != size) {
            sizes.push((size, 0.0, 0.0));
        }
        if let Some(last) = sizes.last_mut() {
            last.1 += w * samples[i].loss;
            last.2 += w;
        }
    }
    if sizes.len() < 3 {
        return None;
    }
    let total: f64 = members.iter().map(|&i| weights[i]).sum();
    let logs: Vec<f64> = members.iter().map(|&i| samples[i].params.ln()).collect();
    let mean = members.iter().zip(&logs).map(|(&i, log)| weights[i] * log).sum::<f64>() / total;
    let (mut gram, mut right) = (Matrix3::zeros(), Vector3::zeros());
    for (&i, log) in members.iter().zip(&logs) {
        let x = log - mean;
        let row = Vector3::new(1.0, x, x * x);
        gram += row * row.transpose() * weights[i];
        right += row * (weights[i] * samples[i].loss);
    }
    let inverse = gram.cholesky()?.inverse();
    let c = inverse * right;
    let squares: f64 = members
        .iter()
        .zip(&logs)
        .map(|(&i, log)| {
            let x = log - mean;
            weights[i] * (samples[i].loss - c[0] - c[1] * x - c[2] * x * x).powi(2)
        })
        .sum();
    let curvature_error = (total > 3.5).then(|| (squares / (total - 3.0) * inverse[(2, 2)]).sqrt());
    let tried = [sizes[0].0, sizes[sizes.len() - 1].0];
    let loss = |(_, losses, weights): (f64, f64, f64)| losses / weights;
    let best = sizes.iter().min_by(|p, q| loss(**p).total_cmp(&loss(**q)))?.0;
    let opens_up = c[2] > 0.0;
    let vertex = -0.5 * c[1] / c[2];
    let params = opens_up.then(|| (mean + vertex).exp()).filter(|p| p.is_finite() && *p > 0.0);
    let outside = params.is_some_and(|p| p <= tried[0] || p >= tried[1]);
    let flag = if !opens_up || curvature_error.is_some_and(|e| c[2] < CLEAR * e) || params.is_none() {
        MinimumFlag::Curvature
    } else if outside || best == tried[0] || best == tried[1] {
        MinimumFlag::Edge
    } else {
        MinimumFlag::Interior
    };
    let mut minimum = params.map(|p| (p, c[0] - 0.25 * c[1] * c[1] / c[2]));
    let mut flag = flag;
    if method == MinimumMethod::Akima {
        let points: Vec<_> = sizes.iter().map(|&size| (size.0.ln(), loss(size).ln())).collect();
        minimum = akima::minimum(&points).map(|(x, y)| (x.exp(), y.exp()));
        flag = if minimum.is_some() { MinimumFlag::Interior } else { MinimumFlag::Edge };
    }
    Some(IsoflopMinimum {
        budget: budget.flops,
        flag,
        runs: members.len(),
        params: minimum.map(|m| m.0),
        tokens: minimum.map(|m| budget.flops / (k * m.0)),
        loss: minimum.map(|m| m.1),
        centre: mean.exp(),
        loss_at_centre: c[0],
        slope: c[1],
        curvature: c[2],
        curvature_error,
        tried,
    })
}

/// The parabolas of all budgets with three sizes or more.
fn minima(
    samples: &[Sample],
    weights: &[f64],
    flops_per_param_token: f64,
    method: MinimumMethod,
) -> Vec<IsoflopMinimum> {
    let of = |b: &Budget| parabola(samples, b, weights, flops_per_param_token, method);
    budgets(samples).iter().filter_map(of).collect()
}

fn laws<'a>(minima: impl Iterator<Item = &'a IsoflopMinimum>) -> Option<Pair> {
    let optima: Vec<_> = minima.filter_map(|m| Some((m.budget, m.params?, m.tokens?))).collect();
    power::pair(&optima)
}

/// The fit with its parabolas, or the parabolas and the reason why there is no fit.
pub(crate) fn fit(
    samples: &[Sample],
    flops_per_param_token: f64,
    grid: &[f64],
    options: &FitOptions,
) -> Result<Fit, (Vec<IsoflopMinimum>, String)> {
    let all = budgets(samples);
    let ones = vec![1.0; samples.len()];
    let method = options.minimum;
    let minima = minima(samples, &ones, flops_per_param_token, method);
    let interior = |m: &&IsoflopMinimum| m.flag == MinimumFlag::Interior;
    let usable = minima.iter().filter(interior).count();
    let Some(best) = laws(minima.iter().filter(interior)) else {
        let why = match all.len() {
            0 => "approach 2 needs isoFLOP budgets, and the runs belong to none".into(),
            n => format!(
                "approach 2 needs 2 budgets whose minimum lies inside the sizes tried, found {usable} ({n} budgets, {} with 3 sizes)",
                minima.len()
            ),
        };
        return Err((minima, why));
    };
    // Only the budgets that the estimate rests on are resampled; those of them that lose their minimum sit out.
    let used: HashSet<u64> = minima.iter().filter(interior).map(|m| m.budget.to_bits()).collect();
    let kept: Vec<Budget> = all.into_iter().filter(|b| used.contains(&b.flops.to_bits())).collect();
    let strata: Vec<Vec<usize>> = kept.iter().map(|b| b.members.clone()).collect();
    let resampled = resampled(options, samples.len(), &strata, |weights| {
        let fitted: Vec<_> = kept
            .iter()
            .filter_map(|b| parabola(samples, b, weights, flops_per_param_token, method))
            .collect();
        let inside = |m: &&IsoflopMinimum| m.params.is_some_and(|p| p > m.tried[0] && p < m.tried[1]);
        laws(fitted.iter().filter(inside))
    });
    let n = minima.iter().filter(interior).map(|m| m.runs).sum();
    let name = if method == MinimumMethod::Akima { "akima" } else { "parabola" };
    let mut fit = power::fit((2, name), n, best, &resampled, grid, options);
    fit.minima = minima;
    Ok(fit)
}

/// What approach 2 would find from runs of the same sizes without noise if `law` were true, over the budgets that `fit`
/// used.
pub(crate) fn bias(
    samples: &[Sample],
    fit: &Fit,
    law: &Params,
    k: f64,
    options: &FitOptions,
) -> Option<Bias> {
    let exact: Option<Vec<Sample>> =
        samples.iter().map(|s| Some(Sample { loss: law.loss(s.params, s.tokens)?, ..s.clone() })).collect();
    let interior = fit.minima.iter().filter(|m| m.flag == MinimumFlag::Interior);
    let budgets: HashSet<u64> = interior.map(|m| m.budget.to_bits()).collect();
    let used = |m: &&IsoflopMinimum| m.params.is_some() && budgets.contains(&m.budget.to_bits());
    let found = minima(&exact?, &vec![1.0; samples.len()], k, options.minimum);
    power::bias(&laws(found.iter().filter(used))?, samples, law, k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(record: usize, params: f64, budget: f64, loss: f64) -> Sample {
        Sample {
            record,
            params,
            tokens: budget / 6.0 / params,
            flops: budget,
            budget: Some(budget),
            loss,
            weight: 1.0,
        }
    }

    #[test]
    fn an_exact_parabola_gives_its_vertex() {
        let losses = |n: f64| 2.0 + 0.05 * (n / 3e7).ln().powi(2);
        let samples: Vec<_> =
            [1e7, 2e7, 4e7, 8e7].iter().enumerate().map(|(i, &n)| sample(i, n, 1e18, losses(n))).collect();
        let found = minima(&samples, &[1.0; 4], 6.0, MinimumMethod::Parabola);
        let m = &found[0];
        assert_eq!(m.flag, MinimumFlag::Interior);
        assert!((m.params.unwrap() / 3e7 - 1.0).abs() < 1e-9);
        assert!((m.tokens.unwrap() / (1e18 / 6.0 / 3e7) - 1.0).abs() < 1e-9);
        assert!((m.loss.unwrap() - 2.0).abs() < 1e-12 && (m.loss_at(8e7) - losses(8e7)).abs() < 1e-12);
    }

    #[test]
    fn edges_and_downward_parabolas_are_flagged() {
        let edge: Vec<_> = (0..4)
            .map(|i| sample(i, 1e7 * 2f64.powi(i as i32), 1e18, 3.0 - 0.1 * i as f64 + 0.01 * (i * i) as f64))
            .collect();
        assert_eq!(minima(&edge, &[1.0; 4], 6.0, MinimumMethod::Parabola)[0].flag, MinimumFlag::Edge);
        let down: Vec<_> = (0..4)
            .map(|i| sample(i, 1e7 * 2f64.powi(i as i32), 1e18, 3.0 - 0.1 * (i as f64 - 1.5).powi(2)))
            .collect();
        let found = minima(&down, &[1.0; 4], 6.0, MinimumMethod::Parabola);
        assert_eq!((found[0].flag, found[0].params), (MinimumFlag::Curvature, None));
    }
}
