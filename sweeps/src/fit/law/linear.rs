//! How a fitted law moves when runs count a little more or less: a Newton step from the minimum.

use super::points::{Mat5, Vec5};
use super::{Problem, Solver};

/// A minimum with the inverse of its Hessian.
pub(crate) struct Linear<'s> {
    problem: &'s Problem<'s>,
    weights: &'s [f64],
    theta: Vec5,
    inverse: Mat5,
}

impl Solver<'_> {
    /// None where the minimum is flat. Parameters on their bounds stay there.
    pub fn linear<'s>(&'s self, weights: &'s [f64], theta: &Vec5) -> Option<Linear<'s>> {
        let problem = &self.problem;
        let near = problem.derivatives(weights, theta);
        let mut hessian = near.hessian;
        let free = problem.free(theta, &near.gradient);
        let inside = |i: usize| theta[i] > problem.bounds.low[i] && theta[i] < problem.bounds.high[i];
        let held: Vec<usize> = (0..5).filter(|&i| !free[i] || !inside(i)).collect();
        for &i in &held {
            hessian.row_mut(i).fill(0.0);
            hessian.column_mut(i).fill(0.0);
            hessian[(i, i)] = 1.0;
        }
        let mut inverse = hessian.cholesky()?.inverse();
        for &i in &held {
            inverse[(i, i)] = 0.0;
        }
        Some(Linear { problem, weights, theta: *theta, inverse })
    }
}

impl Linear<'_> {
    /// The part of one run in the gradient.
    pub fn slope(&self, i: usize) -> [f64; 5] {
        let delta = self.problem.measure.delta;
        let (r, j) = self.problem.row(&self.theta, i);
        (j * (self.weights[i] * r.clamp(-delta, delta))).into()
    }

    /// Theta once the gradient has changed by `shift`.
    pub fn moved(&self, shift: &[f64; 5]) -> Vec5 {
        self.problem.clamp(&(self.theta - self.inverse * Vec5::from(*shift)))
    }
}

#[cfg(test)]
mod tests {
    use crate::fit::intervals::{resampled, shifts};
    use crate::fit::law::{Measure, Points, Solver};
    use crate::fit::options::{FitOptions, IntervalMethod, LawForm, Starts};

    /// Many noisy runs of a law.
    fn points(n: usize) -> Points {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        Points::new((0..n).map(|_| {
            let (params, tokens) = (4e7 * 300f64.powf(uniform()), 1e9 * 1000f64.powf(uniform()));
            let noise: f64 = (0..6).map(|_| uniform() - 0.5).sum();
            let loss = 1.69 + 406.4 / params.powf(0.34) + 410.7 / tokens.powf(0.28);
            (params, tokens, loss * (0.007 * noise).exp())
        }))
    }

    #[test]
    fn linear_resamples_spread_as_fitted_ones() {
        let n = 2500;
        let points = points(n);
        let strata = [(0..n).collect::<Vec<usize>>()];
        let ones = vec![1.0; n];
        let options = FitOptions { bootstrap: 250, intervals: IntervalMethod::Bca, ..FitOptions::default() };
        for form in [LawForm::Chinchilla, LawForm::EqualExponents] {
            let solver = Solver::new(&points, form, Measure { linear: false, delta: 1e-3 });
            let end = solver.solve(&ones, Starts::Projection).unwrap();
            let linear = solver.linear(&ones, &end.theta).unwrap();
            let quick = shifts(&options, &strata, |i| linear.slope(i)).map(|s| linear.moved(&s));
            let slow = resampled(&options, n, &strata, |counts| solver.again(counts, &end.theta));
            for (name, quick, slow) in
                [("draws", quick.draws, slow.draws), ("jackknife", quick.jackknife, slow.jackknife)]
            {
                let spread = |all: &[super::Vec5], i: usize| {
                    let mean = all.iter().map(|t| t[i]).sum::<f64>() / all.len() as f64;
                    (all.iter().map(|t| (t[i] - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt()
                };
                for i in 0..5 {
                    let [p, q] = [&quick, &slow].map(|all| spread(all, i));
                    // Two samples of 250 differ by 6 % in their deviation, and the Huber width is narrow for 2,500 runs.
                    assert!((p - q).abs() <= 0.25 * q, "{form:?} {name} {i}: {p} {q}");
                }
            }
        }
    }
}
