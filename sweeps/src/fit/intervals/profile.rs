//! Profile intervals: the values of one parameter at which the best objective of all others has not risen too far.

use super::{Sandwich, quantile};
use crate::fit::law::{EXPONENT_MAX, Problem, Vec5, minimise};
use crate::fit::options::LawForm;

/// Steps outwards, each half as far again as the one before.
const STEPS: usize = 24;

/// Profile intervals of alpha, beta and a of a law E + A / N^alpha + B / D^beta; of equal
/// exponents there is one. An end that the objective never closes is left out with its interval.
pub(crate) fn profiles<'a>(
    problem: &Problem<'a>,
    weights: &[f64],
    theta: &Vec5,
    sandwich: &Sandwich,
    form: LawForm,
    level: f64,
) -> Vec<(&'static str, [f64; 2])> {
    let z = quantile(0.5 * (1.0 + level));
    let limit = problem.value(weights, theta) + 0.5 * z * z * sandwich.dispersion;
    let mut found = Vec::new();
    let deviation = |i: usize| sandwich.theta[(i, i)].sqrt();
    let mut add = |name, start: f64, scale: f64, most: f64, held: &dyn Fn(f64) -> (Problem<'a>, Vec5)| {
        let mut ends = [start; 2];
        for (end, outwards) in ends.iter_mut().zip([-1.0, 1.0]) {
            match side(weights, theta, [start, outwards * scale, most], limit, held) {
                Some(value) => *end = value,
                None => return,
            }
        }
        found.push((name, ends));
    };
    let fixed = |i: usize, value: f64| {
        let mut held = *problem;
        held.hold.fixed[i] = true;
        let mut at = *theta;
        at[i] = value;
        (held, at)
    };
    match form {
        LawForm::EqualExponents => add("alpha", theta[4], deviation(4), EXPONENT_MAX, &|v| fixed(4, v)),
        LawForm::Chinchilla | LawForm::FixedE(_) => {
            add("alpha", theta[3], deviation(3), EXPONENT_MAX, &|v| fixed(3, v));
            add("beta", theta[4], deviation(4), EXPONENT_MAX, &|v| fixed(4, v));
            let sum = theta[3] + theta[4];
            // d a = (alpha d beta - beta d alpha) / (alpha + beta)^2.
            let c = &sandwich.theta;
            let variance = theta[3].powi(2) * c[(4, 4)] + theta[4].powi(2) * c[(3, 3)]
                - 2.0 * theta[3] * theta[4] * c[(3, 4)];
            let scale = variance.max(0.0).sqrt() / (sum * sum);
            add("a", theta[4] / sum, scale, 1.0, &|a| {
                let mut held = *problem;
                held.hold.ratio = Some((1.0 - a) / a);
                (held, *theta)
            });
        }
        LawForm::Kaplan | LawForm::Compute => {}
    }
    found
}

/// The value on one side at which the profile reaches the limit.
fn side<'a>(
    weights: &[f64],
    theta: &Vec5,
    [start, step, most]: [f64; 3],
    limit: f64,
    held: &dyn Fn(f64) -> (Problem<'a>, Vec5),
) -> Option<f64> {
    let mut near = *theta;
    let mut profile = |value: f64| {
        let (problem, mut from) = held(value);
        // The others start from where they were for the value before.
        for i in (0..5).filter(|&i| !problem.hold.fixed[i]) {
            from[i] = near[i];
        }
        let end = minimise(&problem, weights, &from, 1e-8, 100);
        near = end.theta;
        end.value
    };
    let (mut inside, mut reach) = (start, step);
    let mut outside = None;
    for _ in 0..STEPS {
        let value = start + reach;
        if !value.is_finite() || value <= 0.0 || value >= most || step == 0.0 {
            return None;
        }
        if profile(value) > limit {
            outside = Some(value);
            break;
        }
        inside = value;
        reach *= 1.5;
    }
    let mut outside = outside?;
    for _ in 0..30 {
        let middle = 0.5 * (inside + outside);
        if profile(middle) > limit {
            outside = middle;
        } else {
            inside = middle;
        }
        if (outside - inside).abs() < 1e-4 * step.abs() {
            break;
        }
    }
    Some(0.5 * (inside + outside))
}
