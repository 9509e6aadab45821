//! Approach 3: a law of the loss in N and D fitted to all runs at once. Hoffmann et al. 2022, section 3.3.

use super::intervals::{Resampled, Sandwich, Spread, is_linear, profiles, resampled, sandwich, shifts};
use super::law::{Measure, Points, Solution, Solver};
use super::options::{FitOptions, LawForm, Starts};
use super::parabola::budgets;
use super::result::{Bootstrap, Cloud, Covariance, Estimate, Fit, Optimum, Params, Variant};
use std::collections::{BTreeMap, BTreeSet};

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
    /// How much the run counts; 1 but for weights by seed noise.
    pub weight: f64,
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

pub(crate) fn weights(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|s| s.weight).collect()
}

/// The law of these samples without intervals.
pub(crate) fn solve(samples: &[Sample], options: &FitOptions) -> Option<Solution> {
    let points = points(samples);
    Solver::new(&points, options.form, Measure::from(options)).solve(&weights(samples), options.starts)
}

/// The log residuals, model less measured.
pub(crate) fn residuals(samples: &[Sample], law: &Params) -> Vec<f64> {
    samples.iter().map(|s| (law.loss(s.params, s.tokens).unwrap_or(s.loss) / s.loss).ln()).collect()
}

/// A solution with everything that says how sure it is.
struct Estimated {
    solution: Solution,
    resampled: Resampled<Params>,
    covariance: Option<Covariance>,
    profiles: BTreeMap<String, [f64; 2]>,
}

fn estimate(
    points: &Points,
    weights: &[f64],
    strata: &[Vec<usize>],
    form: LawForm,
    options: &FitOptions,
) -> Option<Estimated> {
    let solver = Solver::new(points, form, Measure::from(options));
    let solution = solver.solve(weights, options.starts)?;
    let again = |counts: &[f64]| {
        let both: Vec<f64> = counts.iter().zip(weights).map(|(c, w)| c * w).collect();
        solver.again(&both, &solution.theta).map(|theta| solver.law(&theta))
    };
    let linear = is_linear(weights.len()).then(|| solver.linear(weights, &solution.theta)).flatten();
    let resampled = match linear {
        Some(linear) => shifts(options, strata, |i| linear.slope(i)).map(|s| solver.law(&linear.moved(&s))),
        None => resampled(options, weights.len(), strata, again),
    };
    let sound = solution.status.is_sound();
    let sandwich = sandwich(&solver.problem, weights, &solution.theta).filter(|_| sound);
    let profiles = match &sandwich {
        Some(s) if options.profile => {
            profiles(&solver.problem, weights, &solution.theta, s, form, options.level)
        }
        _ => Vec::new(),
    };
    Some(Estimated {
        covariance: sandwich.map(|s| covariance(points, form, &s)),
        solution,
        resampled,
        profiles: profiles.into_iter().map(|(name, ends)| (name.to_string(), ends)).collect(),
    })
}

/// The covariance of the logarithms of the scales and of the exponents, from that of theta about the means.
fn covariance(points: &Points, form: LawForm, sandwich: &Sandwich) -> Covariance {
    let (x, y) = (points.x_mean, points.y_mean);
    // Rows: each named quantity as a sum of the entries of theta.
    let rows: Vec<(&str, [f64; 5])> = match form {
        LawForm::Kaplan => vec![
            // n and d are ln N_c and ln D_c but for factors that vary; the exponents are what is compared.
            ("alpha_N / alpha_D", [0.0, 0.0, 1.0, 0.0, 0.0]),
            ("alpha_D", [0.0, 0.0, 0.0, 1.0, 0.0]),
        ],
        LawForm::Compute => vec![
            ("ln E", [1.0, 0.0, 0.0, 0.0, 0.0]),
            ("ln A", [0.0, 1.0, 0.0, x, 0.0]),
            ("alpha", [0.0, 0.0, 0.0, 1.0, 0.0]),
        ],
        _ => {
            let mut rows = vec![
                ("ln A", [0.0, 1.0, 0.0, x, 0.0]),
                ("ln B", [0.0, 0.0, 1.0, 0.0, y]),
                ("alpha", [0.0, 0.0, 0.0, 1.0, 0.0]),
                ("beta", [0.0, 0.0, 0.0, 0.0, 1.0]),
            ];
            if !matches!(form, LawForm::FixedE(_)) {
                rows.insert(0, ("ln E", [1.0, 0.0, 0.0, 0.0, 0.0]));
            }
            rows
        }
    };
    let entry = |p: &[f64; 5], q: &[f64; 5]| -> f64 {
        (0..5)
            .flat_map(|i| (0..5).map(move |k| (i, k)))
            .map(|(i, k)| p[i] * sandwich.theta[(i, k)] * q[k])
            .sum()
    };
    Covariance {
        names: rows.iter().map(|(name, _)| name.to_string()).collect(),
        matrix: rows.iter().map(|(_, p)| rows.iter().map(|(_, q)| entry(p, q)).collect()).collect(),
    }
}

pub(crate) fn strata(samples: &[Sample], stratified: bool) -> Vec<Vec<usize>> {
    if !stratified {
        return vec![(0..samples.len()).collect()];
    }
    let mut strata: Vec<Vec<usize>> = budgets(samples).into_iter().map(|b| b.members).collect();
    let rest: Vec<usize> = (0..samples.len()).filter(|&i| samples[i].budget.is_none()).collect();
    strata.extend(Some(rest).filter(|r| !r.is_empty()));
    strata
}

/// Intervals by name of a law's parameters and exponents.
fn intervals(spread: &Spread<Params>) -> BTreeMap<String, [f64; 2]> {
    let mut found = BTreeMap::new();
    for (i, (name, _)) in spread.best.named().into_iter().enumerate() {
        let value = |law: &Params| law.named().get(i).map_or(f64::NAN, |(_, v)| *v);
        found.extend(spread.interval(&value).map(|ends| (name.to_string(), ends)));
    }
    if spread.best.exponents().is_some() {
        let exponent = |pick: fn(super::Exponents) -> f64| {
            spread.interval(&|law| law.exponents().map_or(f64::NAN, pick))
        };
        found.extend(exponent(|e| e.a).map(|ends| ("a".to_string(), ends)));
        found.extend(exponent(|e| e.b).map(|ends| ("b".to_string(), ends)));
    }
    found
}

fn bootstrap(resampled: &Resampled<Params>, options: &FitOptions) -> Option<Bootstrap> {
    (resampled.drawn > 0).then_some(Bootstrap {
        method: options.intervals,
        stratified: options.stratified,
        level: options.level,
        seed: options.seed,
        resamples: resampled.drawn,
        used: resampled.draws.len(),
        linear: resampled.linear,
    })
}

/// Fits, resamples runs for intervals, and evaluates the optimum at `grid` (FLOPs), which is left empty when the
/// data do not determine the law.
pub(crate) fn fit(
    samples: &[Sample],
    flops_per_param_token: f64,
    grid: &[f64],
    options: &FitOptions,
) -> Option<Fit> {
    let found = estimate(
        &points(samples),
        &weights(samples),
        &strata(samples, options.stratified),
        options.form,
        options,
    )?;
    let law = found.solution.law;
    let spread = Spread::new(&law, &found.resampled, options);
    let k = flops_per_param_token;
    // A law with a parameter on its bound has no optimum worth showing.
    let sound = found.solution.status.is_sound();
    let at = |flops: f64| -> Option<Optimum> {
        let estimate = |value: &dyn Fn(&Params) -> Option<f64>| -> Option<Estimate> {
            let interval = spread.interval(&|law| value(law).unwrap_or(f64::NAN));
            Some(Estimate { value: value(&law)?, interval })
        };
        Some(Optimum {
            flops,
            params: estimate(&|l| Some(l.optimum(flops, k)?.0))?,
            tokens: estimate(&|l| Some(l.optimum(flops, k)?.1))?,
            tokens_per_param: estimate(&|l| l.optimum(flops, k).map(|(n, d)| d / n))?,
            loss: estimate(&|l| l.optimum(flops, k).and_then(|(n, d)| l.loss(n, d))),
        })
    };
    Some(Fit {
        approach: 3,
        form: options.objective.name().into(),
        law: options.form.name().into(),
        status: found.solution.status,
        n: samples.len(),
        objective: found.solution.objective,
        params: law,
        exponents: law.exponents()?,
        intervals: intervals(&spread),
        profiles: found.profiles,
        covariance: found.covariance,
        bootstrap: bootstrap(&found.resampled, options),
        optimum: grid.iter().filter(|_| sound).filter_map(|&flops| at(flops)).collect(),
        minima: Vec::new(),
        envelope: Vec::new(),
        bias: None,
        cloud: Cloud { draws: found.resampled.draws, jackknife: found.resampled.jackknife },
    })
}

/// The runs that a law of compute alone is about: the best of each budget, or all where there are no budgets.
fn frontier(samples: &[Sample]) -> Vec<&Sample> {
    let best =
        |members: &Vec<usize>| members.iter().map(|&i| &samples[i]).min_by(|p, q| p.loss.total_cmp(&q.loss));
    let found: Vec<&Sample> = budgets(samples).iter().filter_map(|b| best(&b.members)).collect();
    if found.is_empty() { samples.iter().collect() } else { found }
}

/// Another law of the same runs, or the reason why it cannot be fitted.
pub(crate) fn variant(samples: &[Sample], form: LawForm, options: &FitOptions) -> Result<Variant, String> {
    let why = |reason: &str| format!("the law `{}` {reason}", form.name());
    let (points, weights, strata) = match form {
        LawForm::Compute => {
            let runs = frontier(samples);
            let different: BTreeSet<u64> = runs.iter().map(|s| s.flops.to_bits()).collect();
            if different.len() < 4 {
                return Err(why(&format!("needs 4 different computes, found {}", different.len())));
            }
            let points = Points::new(runs.iter().map(|s| (s.flops, 1.0, s.loss)));
            (points, runs.iter().map(|s| s.weight).collect(), vec![(0..runs.len()).collect()])
        }
        _ => {
            possible(samples)?;
            (points(samples), weights(samples), strata(samples, options.stratified))
        }
    };
    let options = FitOptions { starts: Starts::Projection, profile: false, ..options.clone() };
    let found = estimate(&points, &weights, &strata, form, &options)
        .ok_or_else(|| why("has no start from which it could be fitted"))?;
    let law = found.solution.law;
    Ok(Variant {
        form: options.objective.name().into(),
        law: form.name().into(),
        status: found.solution.status,
        n: weights.len(),
        objective: found.solution.objective,
        params: law,
        exponents: law.exponents(),
        intervals: intervals(&Spread::new(&law, &found.resampled, &options)),
        covariance: found.covariance,
        bootstrap: bootstrap(&found.resampled, &options),
    })
}
