//! The objective of approach 3 over (alpha, beta), the other parameters fitted anew at every point.

use crate::fit::intervals::sandwich;
use crate::fit::law::{EXPONENT_MAX, Measure, Points, Problem, Solver, Vec5, minimise};
use crate::fit::options::{FitOptions, LawForm, Starts};
use crate::fit::parametric::{self, Sample};
use rayon::prelude::*;

/// Shares of confidence that are drawn.
pub const LEVELS: [f64; 3] = [0.5, 0.9, 0.95];
/// Points along each exponent; odd, so that the optimum is one of them.
const POINTS: usize = 41;
/// Half the first width of the grid, in standard deviations.
const REACH: f64 = 3.5;
/// How often the grid may be widened until the outermost level closes, and by how much.
const WIDER: (usize, f64) = (3, 1.6);

/// The profiled objective on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Contour {
    /// Evenly spaced, the optimum in the middle.
    pub alpha: Vec<f64>,
    pub beta: Vec<f64>,
    /// How far the objective lies above its least value, in units of the dispersion: one row for each alpha. Twice a rise
    /// is about chi-squared with two degrees of freedom (Huber and Ronchetti 2009, section 6.3).
    pub rise: Vec<Vec<f64>>,
    /// alpha and beta of the optimum.
    pub best: [f64; 2],
}

impl Contour {
    /// The rise inside which the exponents lie with this share of confidence: -ln(1 - share), half the quantile of
    /// chi-squared with two degrees of freedom.
    pub fn limit(share: f64) -> f64 {
        -(1.0 - share).ln()
    }

    /// The least rise on the border of the grid.
    fn border(&self) -> f64 {
        let last = self.rise.len() - 1;
        let rows = self.rise[0].iter().chain(&self.rise[last]);
        rows.chain(self.rise.iter().flat_map(|row| [&row[0], &row[row.len() - 1]]))
            .copied()
            .fold(f64::INFINITY, f64::min)
    }
}

/// More runs would take minutes, and of so many the contours are no wider than the line that draws them.
const MOST_RUNS: usize = 50_000;

/// None where alpha and beta are not both free, or the data do not determine them.
pub(super) fn contour(samples: &[Sample], options: &FitOptions) -> Option<Contour> {
    if samples.len() > MOST_RUNS || !matches!(options.form, LawForm::Chinchilla | LawForm::FixedE(_)) {
        return None;
    }
    let points: Points = parametric::points(samples);
    let weights = parametric::weights(samples);
    let solver = Solver::new(&points, options.form, Measure::from(options));
    let theta = solver.solve(&weights, Starts::Projection)?.theta;
    let sandwich = sandwich(&solver.problem, &weights, &theta)?;
    let mut reach = [3, 4].map(|i| REACH * sandwich.theta[(i, i)].sqrt());
    let mut found = grid(&solver.problem, &weights, &theta, reach, sandwich.dispersion);
    for _ in 0..WIDER.0 {
        if found.border() > Contour::limit(LEVELS[2]) {
            break;
        }
        reach = reach.map(|r| r * WIDER.1);
        found = grid(&solver.problem, &weights, &theta, reach, sandwich.dispersion);
    }
    found.rise.iter().flatten().all(|r| r.is_finite()).then_some(found)
}

fn grid(problem: &Problem, weights: &[f64], theta: &Vec5, reach: [f64; 2], dispersion: f64) -> Contour {
    let middle = POINTS / 2;
    let axis = |best: f64, reach: f64| -> Vec<f64> {
        // No exponent below zero, and none beyond what fits search.
        let step = reach.min(0.98 * best).min(0.98 * (EXPONENT_MAX - best)) / middle as f64;
        (0..POINTS).map(|i| best + (i as f64 - middle as f64) * step).collect()
    };
    let (alpha, beta) = (axis(theta[3], reach[0]), axis(theta[4], reach[1]));
    let mut held = *problem;
    (held.hold.fixed[3], held.hold.fixed[4]) = (true, true);
    let least = problem.value(weights, theta);
    let at = |from: &Vec5, i: usize, j: usize| {
        let mut start = *from;
        (start[3], start[4]) = (alpha[i], beta[j]);
        let end = minimise(&held, weights, &start, 1e-8, 60);
        ((end.value - least) / dispersion, end.theta)
    };
    // Down the middle column first; each row then starts from there and walks outwards, each point from its neighbour.
    let mut column = vec![*theta; POINTS];
    for i in (0..middle).rev() {
        column[i] = at(&column[i + 1], i, middle).1;
    }
    for i in middle + 1..POINTS {
        column[i] = at(&column[i - 1], i, middle).1;
    }
    let rise = (0..POINTS).into_par_iter().map(|i| {
        let mut row = vec![0.0; POINTS];
        let (mut left, mut right) = (column[i], column[i]);
        for j in (0..=middle).rev() {
            (row[j], left) = at(&left, i, j);
        }
        for (j, cell) in row.iter_mut().enumerate().skip(middle + 1) {
            (*cell, right) = at(&right, i, j);
        }
        row
    });
    Contour { rise: rise.collect(), best: [theta[3], theta[4]], alpha, beta }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::result::LossParams;

    /// A grid of sizes and lengths from a known law, with a spread that repeats every few runs.
    fn samples() -> Vec<Sample> {
        let law = LossParams { e: 1.7, a: 400.0, b: 410.0, alpha: 0.34, beta: 0.28 };
        let one = |i: usize| {
            let (n, d) = (1e7 * 2.1f64.powi(i as i32 % 7), 1e9 * 2.3f64.powi(i as i32 / 7));
            let noise = 1.0 + 0.002 * (((i * 7919) % 101) as f64 / 50.0 - 1.0);
            Sample {
                record: i,
                params: n,
                tokens: d,
                flops: 6.0 * n * d,
                budget: None,
                loss: law.loss(n, d) * noise,
                weight: 1.0,
            }
        };
        (0..49).map(one).collect()
    }

    #[test]
    fn the_optimum_is_the_lowest_point_and_every_level_closes_around_it() {
        let found = contour(&samples(), &FitOptions::default()).unwrap();
        let middle = POINTS / 2;
        assert!((found.alpha[middle] - found.best[0]).abs() < 1e-12);
        assert!(found.rise[middle][middle].abs() < 1e-6, "{}", found.rise[middle][middle]);
        assert!(found.rise.iter().flatten().all(|r| *r > -1e-6));
        assert!(found.border() > Contour::limit(0.95), "{}", found.border());
        assert!((Contour::limit(0.95) - 2.9957).abs() < 1e-4);
        // The law that made the data is inside.
        let near = |axis: &[f64], v: f64| {
            (0..POINTS).min_by(|&i, &j| (axis[i] - v).abs().total_cmp(&(axis[j] - v).abs())).unwrap()
        };
        assert!(found.rise[near(&found.alpha, 0.34)][near(&found.beta, 0.28)] < Contour::limit(0.99));
    }

    #[test]
    fn the_profile_is_below_any_law_with_these_exponents() {
        let samples = samples();
        let options = FitOptions::default();
        let found = contour(&samples, &options).unwrap();
        let points = parametric::points(&samples);
        let solver = Solver::new(&points, options.form, Measure::from(&options));
        let weights = parametric::weights(&samples);
        let theta = solver.solve(&weights, Starts::Projection).unwrap().theta;
        let dispersion = sandwich(&solver.problem, &weights, &theta).unwrap().dispersion;
        let least = solver.problem.value(&weights, &theta);
        for (i, j) in [(0, 0), (5, 30), (40, 12)] {
            let mut moved = theta;
            (moved[3], moved[4]) = (found.alpha[i], found.beta[j]);
            let unfitted = (solver.problem.value(&weights, &moved) - least) / dispersion;
            assert!(found.rise[i][j] < unfitted, "{} {unfitted}", found.rise[i][j]);
        }
    }

    #[test]
    fn laws_without_two_exponents_have_no_contour() {
        for form in [LawForm::EqualExponents, LawForm::Kaplan] {
            assert!(contour(&samples(), &FitOptions { form, ..FitOptions::default() }).is_none());
        }
    }
}
