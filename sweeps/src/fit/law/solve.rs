//! One fit of a loss law: starts by variable projection, Newton's method on all parameters, and what to call the end.

use super::newton::{Bounds, Formula};
use super::projection::{Projection, Search};
use super::{Hold, Measure, Minimum, Points, Problem, Vec5, bfgs, kaplan, minimise};
use crate::fit::options::{FitOptions, LawForm, Starts};
use crate::fit::result::{ComputeParams, FitStatus, KaplanParams, LossParams, Params};

/// A term below this share of every loss is not determined by the data.
pub(crate) const NEGLIGIBLE: f64 = 1e-4;
/// Starts of a fit, and of a fit to a resample, which has the fit itself as another.
const STARTS: usize = 6;
const STARTS_AGAIN: usize = 2;
/// How often a minimum is left for a lower one beside it.
const SHAKES: usize = 5;
/// Above this many runs a resample starts from the fit only: the two differ by about one part in so many.
const MANY: usize = 20_000;
/// So many of them are searched for a start.
const SOME: usize = 4096;

/// The law and how it was reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Solution {
    pub law: Params,
    pub theta: Vec5,
    pub objective: f64,
    pub status: FitStatus,
}

/// A form of law, a measure and a set of runs; weights say how often each run counts.
pub(crate) struct Solver<'a> {
    pub problem: Problem<'a>,
    form: LawForm,
    projection: Option<Projection<'a>>,
}

impl<'a> Solver<'a> {
    /// For `LawForm::Compute` the points hold compute as x and any constant as y.
    pub fn new(points: &'a Points, form: LawForm, measure: Measure) -> Solver<'a> {
        let mut hold = Hold::NOTHING;
        let mut search = Search { level: None, ratio: None, tokens: true, linear: measure.linear };
        match form {
            LawForm::Chinchilla => {}
            LawForm::FixedE(e) => {
                hold.fixed[0] = true;
                search.level = Some(e);
            }
            LawForm::EqualExponents => {
                hold.ratio = Some(1.0);
                search.ratio = Some(1.0);
            }
            LawForm::Kaplan => hold.fixed[4] = true,
            LawForm::Compute => {
                hold.fixed = [false, false, true, false, true];
                search.tokens = false;
            }
        }
        let formula = if form == LawForm::Kaplan { Formula::Kaplan } else { Formula::Sum };
        let mut bounds = Bounds::of(points);
        if formula == Formula::Kaplan {
            bounds.low = Vec5::new(-2000.0, -2000.0, 1e-3, 1e-3, 0.0);
            bounds.high = Vec5::new(2000.0, 2000.0, 100.0, 4.0, 0.0);
        }
        let problem = Problem { points, formula, measure, hold, bounds };
        let projection = (formula == Formula::Sum).then(|| Projection::new(points, search));
        Solver { problem, form, projection }
    }

    /// The starts by variable projection, each with whether it lies on a boundary.
    fn starts(&self, weights: &[f64], count: usize) -> Vec<(Vec5, bool)> {
        match &self.projection {
            Some(p) => p.starts(weights, count).into_iter().map(|s| (s.theta, s.boundary)).collect(),
            None => kaplan::starts(self.problem.points, weights, count)
                .into_iter()
                .map(|theta| (theta, false))
                .collect(),
        }
    }

    /// Narrows the Huber width to its value from 100 and 10 times it, then minimises.
    fn descend(&self, weights: &[f64], start: &Vec5, iterations: usize) -> Minimum {
        let mut theta = *start;
        if self.problem.measure.delta.is_finite() {
            for wider in [100.0, 10.0] {
                let problem = Problem { measure: self.problem.measure.wider(wider), ..self.problem };
                theta = minimise(&problem, weights, &theta, 1e-4, 20).theta;
            }
        }
        minimise(&self.problem, weights, &theta, 1e-10, iterations)
    }

    /// Where the search of all starts among some thousand runs ends: a start for all of them.
    fn of_some(&self, weights: &[f64]) -> Option<(Vec5, bool)> {
        let step = weights.len().div_ceil(SOME);
        let points = self.problem.points.every(step);
        let some: Vec<f64> = weights.iter().step_by(step).copied().collect();
        let solver = Solver::new(&points, self.form, self.problem.measure);
        let found = solver.solve(&some, Starts::Projection)?;
        Some((found.theta, found.status == FitStatus::BoundaryStart))
    }

    /// Starts a little off a minimum, along the axes of its metric: where few runs lie within the Huber width the objective
    /// has small dips beside each other.
    fn around(&self, weights: &[f64], end: &Minimum) -> Vec<Vec5> {
        let mut metric = self.problem.derivatives(weights, &end.theta).metric;
        let held: Vec<usize> = (0..5).filter(|&i| !self.problem.estimated(i)).collect();
        for &i in &held {
            metric.row_mut(i).fill(0.0);
            metric.column_mut(i).fill(0.0);
        }
        let axes = metric.symmetric_eigen();
        let most = axes.eigenvalues.max();
        // A step that raises the quadratic above the objective by about what one run adds to it.
        let rise = 2.0 * end.value / weights.iter().sum::<f64>();
        let mut starts = Vec::new();
        for (axis, &value) in axes.eigenvectors.column_iter().zip(axes.eigenvalues.iter()) {
            if value > 1e-12 * most && rise > 0.0 {
                let mut step = axis * (rise / value).sqrt();
                held.iter().for_each(|&i| step[i] = 0.0);
                starts.extend([-3.0, -1.0, 1.0, 3.0].map(|length| end.theta + step * length));
            }
        }
        starts
    }

    /// The best of all starts; with `Starts::Grid` the published 4,500 are searched too.
    pub fn solve(&self, weights: &[f64], starts: Starts) -> Option<Solution> {
        let mut best: Option<(Minimum, bool)> = None;
        let mut offer = |end: Minimum, boundary: bool| {
            if end.value.is_finite() && best.as_ref().is_none_or(|(b, _)| end.value < b.value) {
                best = Some((end, boundary));
            }
        };
        let some = if weights.len() > MANY { self.of_some(weights) } else { None };
        for (start, boundary) in some.map_or_else(|| self.starts(weights, STARTS), |s| vec![s]) {
            offer(self.descend(weights, &start, 400), boundary);
        }
        if starts == Starts::Grid && self.form == LawForm::Chinchilla {
            for theta in bfgs::search(&self.problem, weights, STARTS) {
                offer(minimise(&self.problem, weights, &theta, 1e-12, 400), false);
            }
        }
        let (mut end, boundary) = best?;
        if weights.len() <= MANY {
            for _ in 0..SHAKES {
                let others = self.around(weights, &end);
                let ends = others.iter().map(|start| minimise(&self.problem, weights, start, 1e-10, 100));
                let least = ends.filter(|e| e.value.is_finite()).min_by(|p, q| p.value.total_cmp(&q.value));
                match least.filter(|e| e.value < end.value * (1.0 - 1e-12)) {
                    Some(better) => end = better,
                    None => break,
                }
            }
        }
        let end = minimise(&self.problem, weights, &end.theta, 1e-13, 100);
        Some(self.solution(&end, boundary))
    }

    /// The fit to a resample: variable projection anew, and the fit to all runs as one more start.
    pub fn again(&self, weights: &[f64], near: &Vec5) -> Option<Vec5> {
        let mut best = minimise(&self.problem, weights, near, 1e-6, 60);
        if let Some(projection) = self.projection.as_ref().filter(|_| weights.len() <= MANY) {
            for start in projection.starts(weights, STARTS_AGAIN) {
                let end = self.descend(weights, &start.theta, 60);
                if end.value < best.value || !best.value.is_finite() {
                    best = end;
                }
            }
        }
        best.value.is_finite().then_some(best.theta)
    }

    fn solution(&self, end: &Minimum, boundary: bool) -> Solution {
        let mut shares = [0.0f64; 3];
        for i in 0..self.problem.points.len() {
            let (_, p) = self.problem.residual(&end.theta, i);
            (0..3).for_each(|k| shares[k] = shares[k].max(p[k]));
        }
        match self.form {
            LawForm::FixedE(_) => shares[0] = 1.0,
            LawForm::Compute => shares[2] = 1.0,
            _ => {}
        }
        let status = if self.problem.touches(&end.theta) || shares.iter().any(|&s| s < NEGLIGIBLE) {
            FitStatus::AtBound
        } else if !end.converged {
            FitStatus::Abnormal
        } else if boundary {
            FitStatus::BoundaryStart
        } else {
            FitStatus::Converged
        };
        let law = self.law(&end.theta);
        Solution { law, theta: end.theta, objective: self.named_objective(end.value), status }
    }

    /// Sum of squares where the measure has no Huber width, else the sum of Huber terms.
    fn named_objective(&self, value: f64) -> f64 {
        if self.problem.measure.delta.is_finite() { value } else { 2.0 * value }
    }

    /// The law that theta stands for.
    pub fn law(&self, theta: &Vec5) -> Params {
        let Points { x_mean, y_mean, .. } = *self.problem.points;
        match self.form {
            LawForm::Kaplan => {
                // n - rho x = rho (ln N_c - ln N); d - y = ln D_c - ln D.
                Params::Kaplan(KaplanParams {
                    n_c: (theta[0] / theta[2] + x_mean).exp(),
                    d_c: (theta[1] + y_mean).exp(),
                    alpha_n: theta[2] * theta[3],
                    alpha_d: theta[3],
                })
            }
            LawForm::Compute => Params::Compute(ComputeParams {
                e: theta[0].exp(),
                a: (theta[1] + theta[3] * x_mean).exp(),
                alpha: theta[3],
            }),
            form => Params::Loss(LossParams {
                e: if let LawForm::FixedE(e) = form { e } else { theta[0].exp() },
                a: (theta[1] + theta[3] * x_mean).exp(),
                b: (theta[2] + theta[4] * y_mean).exp(),
                alpha: theta[3],
                beta: theta[4],
            }),
        }
    }
}

/// The measure that the options ask for.
impl From<&FitOptions> for Measure {
    fn from(options: &FitOptions) -> Measure {
        Measure {
            linear: options.objective.is_linear(),
            delta: if options.objective.is_huber() { options.delta } else { f64::INFINITY },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Measure = Measure { linear: false, delta: 1e-3 };

    fn points() -> Points {
        Points::new((0..29).map(|i| {
            let (n, d) = (1e6 * 1.9f64.powi(i % 6), 1e8 * 2.3f64.powi(i / 6));
            let bump = 1.0 + 0.004 * ((i * 7) % 5) as f64;
            (n, d, (1.7 + 400.0 / n.powf(0.34) + 410.0 / d.powf(0.28)) * bump)
        }))
    }

    #[test]
    fn gradient_and_hessian_agree_with_finite_differences() {
        let points = points();
        let weights: Vec<f64> = (0..29).map(|i| f64::from(i % 3)).collect();
        for form in [LawForm::Chinchilla, LawForm::EqualExponents, LawForm::Kaplan] {
            // A wide Huber keeps every residual on the smooth side of its corner.
            for (linear, delta) in
                [(false, 1.0), (false, 1e-3), (true, 5.0), (true, 1e-3), (true, f64::INFINITY)]
            {
                let solver = Solver::new(&points, form, Measure { linear, delta });
                let p = &solver.problem;
                let theta = match form {
                    LawForm::Kaplan => p.clamp(&Vec5::new(1.2, 2.0, 0.8, 0.31, 0.0)),
                    _ => p.clamp(&Vec5::new(0.5, 0.3, 0.2, 0.3, 0.25)),
                };
                let d = p.derivatives(&weights, &theta);
                let h = 1e-6;
                let moved = |i: usize, by: f64| {
                    let mut out = theta;
                    out[i] += by;
                    p.clamp(&out)
                };
                let skip = |i: usize| match form {
                    LawForm::EqualExponents => i == 3,
                    LawForm::Kaplan => i == 4,
                    _ => false,
                };
                for i in (0..5).filter(|&i| !skip(i)) {
                    let (up, down) = (moved(i, h), moved(i, -h));
                    let slope = (p.value(&weights, &up) - p.value(&weights, &down)) / (2.0 * h);
                    let scale = d.gradient.amax();
                    assert!(
                        (slope - d.gradient[i]).abs() < 2e-6 * scale,
                        "{form:?} {delta} {i}: {slope} {}",
                        d.gradient[i]
                    );
                    let bend = (p.derivatives(&weights, &up).gradient
                        - p.derivatives(&weights, &down).gradient)
                        / (2.0 * h);
                    for k in (0..5).filter(|&k| !skip(k)) {
                        assert!(
                            (bend[k] - d.hessian[(i, k)]).abs() < 2e-6 * d.hessian.amax(),
                            "{form:?} {linear} {delta} {i} {k}: {} {}",
                            bend[k],
                            d.hessian[(i, k)]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_gradient_vanishes_at_the_minimum() {
        let points = points();
        let solver = Solver::new(&points, LawForm::Chinchilla, LOG);
        let weights = [1.0; 29];
        let end = solver.solve(&weights, Starts::Projection).unwrap();
        let d = solver.problem.derivatives(&weights, &end.theta);
        assert!(d.gradient.amax() < 1e-9 * d.scale, "{} {}", d.gradient, d.scale);
    }

    #[test]
    fn kaplans_form_comes_back_from_its_own_losses() {
        let wanted = KaplanParams { n_c: 8.8e13, d_c: 5.4e13, alpha_n: 0.076, alpha_d: 0.095 };
        let points = Points::new((0..36).map(|i| {
            let (n, d) = (1e6 * 4f64.powi(i % 6), 1e8 * 4f64.powi(i / 6));
            (n, d, wanted.loss(n, d))
        }));
        let solver = Solver::new(&points, LawForm::Kaplan, LOG);
        let end = solver.solve(&[1.0; 36], Starts::Projection).unwrap();
        let Params::Kaplan(found) = end.law else { panic!("{:?}", end.law) };
        assert_eq!(end.status, FitStatus::Converged);
        assert!((found.alpha_n / wanted.alpha_n - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.alpha_d / wanted.alpha_d - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.n_c / wanted.n_c - 1.0).abs() < 1e-4 && (found.d_c / wanted.d_c - 1.0).abs() < 1e-4);
    }
}
