//! Approach 1: the lower envelope of the training curves over compute. Hoffmann et al. 2022, section 3.1.

use super::intervals::resampled;
use super::options::FitOptions;
use super::parametric::Sample;
use super::power::{self, Pair};
use super::records::Curve;
use super::result::{Bias, EnvelopePoint, Fit, Params};
use std::collections::HashMap;

/// Computes at which the envelope is taken, evenly in log C.
const STEPS: usize = 200;
/// A training loss is averaged over points whose compute is within this factor.
const SMOOTH: f64 = 1.05;

/// One curve on the common grid of compute.
#[derive(Debug, Clone)]
pub(crate) struct OnGrid {
    pub run: String,
    pub params: f64,
    /// Loss at each grid point that the curve spans.
    loss: Vec<Option<f64>>,
}

/// Curves on a common grid of FLOPs.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub flops: Vec<f64>,
    pub curves: Vec<OnGrid>,
}

/// (FLOPs, loss) with increasing FLOPs: validation where two or more were measured, else the smoothed training loss.
fn measured(curve: &Curve) -> Vec<(f64, f64)> {
    let sound = |flops: f64, loss: Option<f64>| loss.filter(|l| *l > 0.0 && flops > 0.0).map(|l| (flops, l));
    let mut points: Vec<_> = curve.points.iter().filter_map(|p| sound(p.flops, p.validation_loss)).collect();
    let smooth = points.len() < 2;
    if smooth {
        points = curve.points.iter().filter_map(|p| sound(p.flops, p.train_loss)).collect();
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points.dedup_by(|a, b| a.0 == b.0);
    if !smooth {
        return points;
    }
    let (mut from, mut to, mut sum) = (0, 0, 0.0);
    (0..points.len())
        .map(|i| {
            let flops = points[i].0;
            while to < points.len() && points[to].0 <= flops * SMOOTH {
                sum += points[to].1;
                to += 1;
            }
            while points[from].0 < flops / SMOOTH {
                sum -= points[from].1;
                from += 1;
            }
            (flops, sum / (to - from) as f64)
        })
        .collect()
}

/// Interpolates the curves of the fitted runs, linearly in log C; none when no two curves overlap.
pub(crate) fn grid(samples: &[Sample], names: &[&str], curves: &[Curve]) -> Option<Grid> {
    let mut found = Vec::new();
    let by_name: HashMap<&str, &Curve> = curves.iter().map(|c| (c.run.as_str(), c)).collect();
    for (sample, name) in samples.iter().zip(names) {
        let Some(curve) = by_name.get(name) else { continue };
        let points = measured(curve);
        if points.len() >= 2 {
            found.push((name.to_string(), sample.params, points));
        }
    }
    let low = found.iter().map(|f| f.2[0].0).fold(f64::INFINITY, f64::min);
    let high = found.iter().map(|f| f.2[f.2.len() - 1].0).fold(0.0, f64::max);
    if found.len() < 2 || high <= low {
        return None;
    }
    let flops: Vec<f64> =
        (0..STEPS).map(|i| low * (high / low).powf(i as f64 / (STEPS - 1) as f64)).collect();
    let curves = found
        .into_iter()
        .map(|(run, params, points)| {
            let loss = flops.iter().map(|&c| interpolate(&points, c)).collect();
            OnGrid { run, params, loss }
        })
        .collect();
    Some(Grid { flops, curves })
}

fn interpolate(points: &[(f64, f64)], flops: f64) -> Option<f64> {
    let last = points[points.len() - 1];
    // The grid's ends are computed by powers and may miss a curve's end by a rounding.
    if flops < points[0].0 * (1.0 - 1e-9) || flops > last.0 * (1.0 + 1e-9) {
        return None;
    }
    let above = points.partition_point(|p| p.0 < flops).clamp(1, points.len() - 1);
    let (p, q) = (points[above - 1], points[above]);
    let share = ((flops / p.0).ln() / (q.0 / p.0).ln()).clamp(0.0, 1.0);
    Some(p.1 + share * (q.1 - p.1))
}

/// The lowest curve at each compute, where it is lower than any before: a curve that ended must not let the envelope
/// rise to the next. A point is interior when a smaller and a larger model reach its compute too:
/// otherwise the winner may only be the last one tried.
pub(crate) fn envelope(grid: &Grid, weights: &[f64], flops_per_param_token: f64) -> Vec<EnvelopePoint> {
    let mut points = Vec::new();
    let mut lowest_before = f64::INFINITY;
    for (i, &flops) in grid.flops.iter().enumerate() {
        let here = grid
            .curves
            .iter()
            .zip(weights)
            .filter(|(_, w)| **w > 0.0)
            .filter_map(|(c, _)| Some((c, c.loss[i]?)));
        let (mut best, mut least, mut most) = (None::<(&OnGrid, f64)>, f64::INFINITY, 0.0f64);
        for (curve, loss) in here {
            least = least.min(curve.params);
            most = most.max(curve.params);
            if best.is_none_or(|(_, lowest)| loss < lowest) {
                best = Some((curve, loss));
            }
        }
        if let Some((curve, loss)) = best.filter(|(_, loss)| *loss < lowest_before) {
            lowest_before = loss;
            points.push(EnvelopePoint {
                flops,
                run: curve.run.clone(),
                params: curve.params,
                tokens: flops / (flops_per_param_token * curve.params),
                loss,
                interior: curve.params > least && curve.params < most,
            });
        }
    }
    points
}

fn laws(points: &[EnvelopePoint]) -> Option<Pair> {
    let interior: Vec<_> =
        points.iter().filter(|p| p.interior).map(|p| (p.flops, p.params, p.tokens)).collect();
    let first = interior.first()?.1;
    if interior.iter().all(|p| p.1 == first) {
        return None;
    }
    power::pair(&interior)
}

/// The fit with its envelope, or the envelope and the reason why there is no fit.
pub(crate) fn fit(
    samples: &[Sample],
    names: &[&str],
    curves: &[Curve],
    flops_per_param_token: f64,
    wanted: &[f64],
    options: &FitOptions,
) -> Result<Fit, String> {
    let Some(grid) = grid(samples, names, curves) else {
        return Err("approach 1 needs the training curves of 2 finished runs that overlap in compute".into());
    };
    let n = grid.curves.len();
    let points = envelope(&grid, &vec![1.0; n], flops_per_param_token);
    let Some(best) = laws(&points) else {
        return Err(format!(
            "approach 1 needs 2 model sizes on the inner part of the lower envelope of its {n} curves"
        ));
    };
    let everything = vec![(0..n).collect::<Vec<_>>()];
    let resampled =
        resampled(options, n, &everything, |weights| laws(&envelope(&grid, weights, flops_per_param_token)));
    let mut fit = power::fit((1, "envelope"), n, best, &resampled, wanted, options);
    fit.envelope = points;
    Ok(fit)
}

/// What approach 1 would find if every loss of these curves were `law`'s for the tokens seen by then.
pub(crate) fn bias(
    samples: &[Sample],
    names: &[&str],
    curves: &[Curve],
    law: &Params,
    flops_per_param_token: f64,
) -> Option<Bias> {
    let sizes: HashMap<&str, f64> = names.iter().copied().zip(samples.iter().map(|s| s.params)).collect();
    let exact: Vec<Curve> = curves
        .iter()
        .filter_map(|curve| {
            let params = *sizes.get(curve.run.as_str())?;
            let mut exact = curve.clone();
            for p in exact.points.iter_mut().filter(|p| p.tokens > 0.0) {
                let loss = law.loss(params, p.tokens);
                p.train_loss = p.train_loss.and(loss);
                p.validation_loss = p.validation_loss.and(loss);
            }
            Some(exact)
        })
        .collect();
    let grid = grid(samples, names, &exact)?;
    let points = envelope(&grid, &vec![1.0; grid.curves.len()], flops_per_param_token);
    power::bias(&laws(&points)?, samples, law, flops_per_param_token)
}

/// Runs whose learning rate falls by more than a tenth after its peak: before their end their loss is above that of a
/// run whose schedule ends there.
pub(crate) fn decaying<'a>(names: &[&str], curves: &'a [Curve]) -> Vec<&'a str> {
    let decays = |curve: &&Curve| {
        let rates: Vec<f64> = curve.points.iter().filter_map(|p| p.lr).collect();
        let peak = rates.iter().copied().fold(0.0, f64::max);
        rates.last().is_some_and(|&last| last < 0.9 * peak)
    };
    curves.iter().filter(|c| names.contains(&c.run.as_str())).filter(decays).map(|c| c.run.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::records::CurvePoint;

    fn curve(run: &str, losses: &[(f64, f64)], validation: bool) -> Curve {
        let points = losses
            .iter()
            .enumerate()
            .map(|(i, &(flops, loss))| CurvePoint {
                step: i as u64,
                tokens: flops / 6.0,
                flops,
                train_loss: Some(loss),
                validation_loss: validation.then_some(loss),
                lr: Some(1e-3),
                grad_norm: None,
            })
            .collect();
        Curve { run: run.into(), points }
    }

    #[test]
    fn interpolation_is_linear_in_log_compute() {
        let points = [(1e3, 4.0), (1e5, 2.0)];
        assert!((interpolate(&points, 1e4).unwrap() - 3.0).abs() < 1e-12);
        assert_eq!(interpolate(&points, 1e2), None);
        assert_eq!(interpolate(&points, 1e6), None);
    }

    #[test]
    fn training_losses_are_smoothed_and_validation_losses_are_not() {
        let zigzag: Vec<_> =
            (0..400).map(|i| (1000.0 + i as f64, 3.0 + if i % 2 == 0 { 0.5 } else { -0.5 })).collect();
        let smooth = measured(&curve("a", &zigzag, false));
        assert!(smooth.iter().all(|p| (p.1 - 3.0).abs() < 0.02));
        assert_eq!(measured(&curve("a", &zigzag, true))[0].1, 3.5);
    }
}
