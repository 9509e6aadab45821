//! Approach 3: L(N, D) = E + A / N^alpha + B / D^beta fitted to all runs at once. Hoffmann et al. 2022, section 3.3.

use super::bootstrap::{Named, draw, interval, resample};
use super::huber::{Bounds, Minimum, Points, Vec5, minimise, residual};
use super::options::FitOptions;
use super::result::{Bootstrap, Estimate, Fit, FitStatus, LossParams, Optimum, Params};
use super::starts::starts;
use std::collections::{BTreeMap, BTreeSet};

/// Width of the quadratic part of the Huber loss, in log loss. Hoffmann et al. 2022.
pub const DELTA: f64 = 1e-3;
/// A term below this share of every loss is not determined by the data.
const NEGLIGIBLE: f64 = 1e-4;
const STARTS: usize = 6;

/// A run as the fits see it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Position among the records given.
    pub record: usize,
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    pub budget: Option<f64>,
    pub loss: f64,
}

/// The law and how it was reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Solution {
    pub law: LossParams,
    pub theta: Vec5,
    pub objective: f64,
    pub status: FitStatus,
}

/// Whether five parameters can be asked of these samples, or the reason why not.
pub(crate) fn possible(samples: &[Sample]) -> Result<(), String> {
    let bits = |f: fn(&Sample) -> f64| samples.iter().map(|s| f(s).to_bits()).collect::<BTreeSet<_>>().len();
    let pairs =
        samples.iter().map(|s| (s.params.to_bits(), s.tokens.to_bits())).collect::<BTreeSet<_>>().len();
    let (sizes, lengths) = (bits(|s| s.params), bits(|s| s.tokens));
    if pairs >= 6 && sizes >= 3 && lengths >= 3 {
        return Ok(());
    }
    Err(format!(
        "approach 3 needs 6 different runs with 3 sizes and 3 token counts, found {pairs} with {sizes} and {lengths}"
    ))
}

pub(crate) fn points(samples: &[Sample]) -> Points {
    Points::new(samples.iter().map(|s| (s.params, s.tokens, s.loss)))
}

fn law(points: &Points, theta: &Vec5) -> LossParams {
    LossParams {
        e: theta[0].exp(),
        a: (theta[1] + theta[3] * points.x_mean).exp(),
        b: (theta[2] + theta[4] * points.y_mean).exp(),
        alpha: theta[3],
        beta: theta[4],
    }
}

/// Minimises from the best variable-projection starts, narrowing the Huber width to its value from 100 and 10 times it.
pub(crate) fn solve(points: &Points, weights: &[f64]) -> Option<Solution> {
    let bounds = Bounds::of(points);
    let mut best: Option<(Minimum, bool)> = None;
    for start in starts(points, STARTS) {
        let mut theta = start.theta;
        for wider in [100.0, 10.0] {
            theta = minimise(points, weights, &theta, &bounds, wider * DELTA, 40).theta;
        }
        let end = minimise(points, weights, &theta, &bounds, DELTA, 400);
        if end.value.is_finite() && best.as_ref().is_none_or(|(b, _)| end.value < b.value) {
            best = Some((end, start.boundary));
        }
    }
    let (end, boundary) = best?;
    let mut shares = [0.0f64; 3];
    for i in 0..points.len() {
        let (_, p) = residual(&end.theta, points.x[i], points.y[i], points.z[i]);
        (0..3).for_each(|k| shares[k] = shares[k].max(p[k]));
    }
    let status = if bounds.touching(&end.theta).contains(&true) || shares.iter().any(|&s| s < NEGLIGIBLE) {
        FitStatus::AtBound
    } else if !end.converged {
        FitStatus::Abnormal
    } else if boundary {
        FitStatus::BoundaryStart
    } else {
        FitStatus::Converged
    };
    Some(Solution { law: law(points, &end.theta), theta: end.theta, objective: end.value, status })
}

/// The log residuals, model minus measured.
pub(crate) fn residuals(points: &Points, theta: &Vec5) -> Vec<f64> {
    (0..points.len()).map(|i| residual(theta, points.x[i], points.y[i], points.z[i]).0).collect()
}

/// Fits, resamples runs for intervals, and evaluates the optimum at `grid` (FLOPs), which is left empty when the
/// data do not determine the law.
pub(crate) fn fit(
    samples: &[Sample],
    flops_per_param_token: f64,
    grid: &[f64],
    options: &FitOptions,
) -> Option<Fit> {
    let points = points(samples);
    let solution = solve(&points, &vec![1.0; samples.len()])?;
    let bounds = Bounds::of(&points);
    let everything = vec![(0..samples.len()).collect::<Vec<_>>()];
    let draws: Vec<LossParams> = resample(options.bootstrap, |k| {
        let weights = draw(options.seed, k, samples.len(), &everything);
        let end = minimise(&points, &weights, &solution.theta, &bounds, DELTA, 120);
        end.value.is_finite().then(|| law(&points, &end.theta))
    });
    let spread = |value: &dyn Fn(&LossParams) -> f64| {
        interval(&draws.iter().map(value).collect::<Vec<_>>(), options.level)
    };
    let named: [Named<LossParams>; 7] = [
        ("E", |l| l.e),
        ("A", |l| l.a),
        ("B", |l| l.b),
        ("alpha", |l| l.alpha),
        ("beta", |l| l.beta),
        ("a", |l| l.exponents().a),
        ("b", |l| l.exponents().b),
    ];
    let intervals: BTreeMap<_, _> =
        named.iter().filter_map(|(name, value)| Some((name.to_string(), spread(value)?))).collect();
    let k = flops_per_param_token;
    // A law with a parameter on its bound has no optimum worth showing.
    let sound = matches!(solution.status, FitStatus::Converged | FitStatus::BoundaryStart);
    let optimum = grid
        .iter()
        .filter(|_| sound)
        .map(|&flops| {
            let estimate = |value: &dyn Fn(&LossParams) -> f64| Estimate {
                value: value(&solution.law),
                interval: spread(value),
            };
            Optimum {
                flops,
                params: estimate(&|l| l.optimum(flops, k).0),
                tokens: estimate(&|l| l.optimum(flops, k).1),
                loss: Some(estimate(&|l| {
                    let (params, tokens) = l.optimum(flops, k);
                    l.loss(params, tokens)
                })),
            }
        })
        .collect();
    Some(Fit {
        approach: 3,
        form: "huber-log".into(),
        status: solution.status,
        n: samples.len(),
        objective: solution.objective,
        params: Params::Loss(solution.law),
        exponents: solution.law.exponents(),
        intervals,
        bootstrap: (options.bootstrap > 0).then_some(Bootstrap {
            level: options.level,
            seed: options.seed,
            resamples: options.bootstrap,
            used: draws.len(),
        }),
        optimum,
        minima: Vec::new(),
        envelope: Vec::new(),
    })
}
