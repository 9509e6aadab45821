//! Newton's method with analytic second derivatives in a box, some parameters held or tied.

use super::points::{Derivatives, Mat5, Measure, Points, Vec5};
use super::{kaplan, sum};

/// Largest exponent searched; fits of language models lie between 0.05 and 1.
pub(crate) const EXPONENT_MAX: f64 = 4.0;
pub(crate) const EXPONENT_MIN: f64 = 1e-3;

/// Which formula theta stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Formula {
    /// E + A / N^alpha + B / D^beta, theta = (ln E, a, b, alpha, beta).
    Sum,
    /// ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, theta as in [`kaplan`].
    Kaplan,
}

/// What is not free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hold {
    pub fixed: [bool; 5],
    /// theta_3 is this times theta_4.
    pub ratio: Option<f64>,
}

impl Hold {
    pub const NOTHING: Hold = Hold { fixed: [false; 5], ratio: None };

    /// The parameters that are estimated.
    pub fn count(&self) -> usize {
        self.fixed.iter().filter(|f| !**f).count() - usize::from(self.ratio.is_some())
    }
}

/// The box theta must stay in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub low: Vec5,
    pub high: Vec5,
}

impl Bounds {
    /// Terms may fall to e^-12 of the least loss, no further, and exponents lie in [0.001, 4].
    pub fn of(points: &Points) -> Bounds {
        let least = points.z.iter().copied().fold(f64::INFINITY, f64::min);
        let most = points.z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let reach = EXPONENT_MAX * span(&points.x).max(span(&points.y));
        let floor = least - 12.0;
        Bounds {
            low: Vec5::new(floor, floor, floor, EXPONENT_MIN, EXPONENT_MIN),
            high: Vec5::new(most, most + reach, most + reach, EXPONENT_MAX, EXPONENT_MAX),
        }
    }
}

fn span(v: &[f64]) -> f64 {
    let low = v.iter().copied().fold(f64::INFINITY, f64::min);
    v.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low
}

/// An objective over theta.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem<'a> {
    pub points: &'a Points,
    pub formula: Formula,
    pub measure: Measure,
    pub hold: Hold,
    pub bounds: Bounds,
}

impl Problem<'_> {
    pub fn value(&self, weights: &[f64], theta: &Vec5) -> f64 {
        match self.formula {
            Formula::Sum => sum::value(self.points, weights, theta, self.measure),
            Formula::Kaplan => kaplan::value(self.points, weights, theta, self.measure),
        }
    }

    /// With all derivatives, those of a tied parameter moved to the one that it follows.
    pub fn derivatives(&self, weights: &[f64], theta: &Vec5) -> Derivatives {
        let mut d = match self.formula {
            Formula::Sum => sum::derivatives(self.points, weights, theta, self.measure),
            Formula::Kaplan => kaplan::derivatives(self.points, weights, theta, self.measure),
        };
        if let Some(ratio) = self.hold.ratio {
            d.gradient[4] += ratio * d.gradient[3];
            for m in [&mut d.hessian, &mut d.metric] {
                let row = m.row(3) * ratio;
                m.row_mut(4).zip_apply(&row, |v, r| *v += r);
                let column = m.column(3) * ratio;
                m.column_mut(4).zip_apply(&column, |v, c| *v += c);
            }
        }
        d
    }

    /// The residual and the shares of the terms at one run.
    pub fn residual(&self, theta: &Vec5, i: usize) -> (f64, [f64; 3]) {
        match self.formula {
            Formula::Sum => sum::residual(self.points, theta, i, self.measure.linear),
            Formula::Kaplan => kaplan::residual(self.points, theta, i, self.measure.linear),
        }
    }

    /// The residual at one run with its slopes in the estimated parameters; those of the others are zero.
    pub fn row(&self, theta: &Vec5, i: usize) -> (f64, Vec5) {
        let (r, mut j) = match self.formula {
            Formula::Sum => sum::row(self.points, theta, i, self.measure.linear),
            Formula::Kaplan => kaplan::row(self.points, theta, i, self.measure.linear),
        };
        if let Some(ratio) = self.hold.ratio {
            j[4] += ratio * j[3];
        }
        for k in (0..5).filter(|&k| !self.estimated(k)) {
            j[k] = 0.0;
        }
        (r, j)
    }

    /// Whether a parameter is free: neither fixed nor tied to another.
    pub fn estimated(&self, i: usize) -> bool {
        !(self.hold.fixed[i] || i == 3 && self.hold.ratio.is_some())
    }

    /// Moves theta into the box and to what is tied.
    pub fn clamp(&self, theta: &Vec5) -> Vec5 {
        let mut out = *theta;
        for i in (0..5).filter(|&i| self.estimated(i)) {
            out[i] = theta[i].clamp(self.bounds.low[i], self.bounds.high[i]);
        }
        if let Some(ratio) = self.hold.ratio {
            out[3] = ratio * out[4];
        }
        out
    }

    /// Whether an estimated parameter sits on its bound.
    pub fn touches(&self, theta: &Vec5) -> bool {
        (0..5)
            .any(|i| self.estimated(i) && (theta[i] <= self.bounds.low[i] || theta[i] >= self.bounds.high[i]))
    }

    pub fn free(&self, theta: &Vec5, gradient: &Vec5) -> [bool; 5] {
        std::array::from_fn(|i| {
            self.estimated(i)
                && !(theta[i] <= self.bounds.low[i] && gradient[i] > 0.0
                    || theta[i] >= self.bounds.high[i] && gradient[i] < 0.0)
        })
    }
}

/// Where an iteration ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minimum {
    pub theta: Vec5,
    pub value: f64,
    /// Whether the gradient, less its part that pushes against a bound, is small.
    pub converged: bool,
}

/// Each step solves (H + lambda M) s = -g, M the metric of [`Derivatives`]: lambda -> 0 is a Newton step. Where
/// H + lambda M is not positive definite, far from the minimum, the step is (1 + lambda) M s = -g, reweighted
/// Gauss-Newton. Ends when every slope is below `tolerance` times the slopes that it is the sum of.
pub(crate) fn minimise(
    problem: &Problem,
    weights: &[f64],
    start: &Vec5,
    tolerance: f64,
    iterations: usize,
) -> Minimum {
    // Where the runs lie on the law, rounding is all that is left of the slopes.
    let rounding = 1e-14 * weights.iter().sum::<f64>();
    let mut theta = problem.clamp(start);
    let mut d = problem.derivatives(weights, &theta);
    let mut lambda = 0.3;
    for _ in 0..iterations {
        let free = problem.free(&theta, &d.gradient);
        let limit = (tolerance * d.scale).max(rounding);
        if (0..5).all(|i| !free[i] || d.gradient[i].abs() <= limit) {
            break;
        }
        let step = damped_step(&d.gradient, &(d.hessian + d.metric * lambda), &d.metric, lambda, &free)
            .or_else(|| damped_step(&d.gradient, &(d.metric * (1.0 + lambda)), &d.metric, lambda, &free));
        let Some(step) = step else {
            lambda *= 8.0;
            if lambda > 1e12 {
                break;
            }
            continue;
        };
        let next = problem.clamp(&(theta + step));
        let moved = next - theta;
        let mut along = moved;
        if problem.hold.ratio.is_some() {
            along[3] = 0.0;
        }
        let expected = -(d.gradient.dot(&along) + 0.5 * (along.transpose() * d.hessian * along)[(0, 0)]);
        let trial = problem.value(weights, &next);
        let gained = d.value - trial;
        if gained > 0.0 {
            lambda *= if gained > 0.75 * expected {
                0.2
            } else if gained > 0.25 * expected {
                1.0
            } else {
                3.0
            };
            theta = next;
            d = problem.derivatives(weights, &theta);
        } else {
            // Rounding hides any further gain once the step is this small.
            if moved.amax() <= 1e-13 {
                break;
            }
            lambda = (lambda * 6.0).max(1e-6);
            if lambda > 1e12 {
                break;
            }
        }
    }
    let free = problem.free(&theta, &d.gradient);
    let loose = (1e-6 * d.scale).max(1e-9 * weights.iter().sum::<f64>() * problem.measure.delta.min(1e-3));
    let converged = (0..5).all(|i| !free[i] || d.gradient[i].abs() <= loose);
    Minimum { theta, value: d.value, converged }
}

/// Solves matrix s = -gradient for the free parameters; none where the matrix is not positive definite.
fn damped_step(gradient: &Vec5, matrix: &Mat5, metric: &Mat5, lambda: f64, free: &[bool; 5]) -> Option<Vec5> {
    let ridge = 1e-10 * metric.trace() + 1e-300;
    let mut matrix = matrix + Mat5::identity() * (ridge * lambda);
    let mut right = -gradient;
    for i in (0..5).filter(|&i| !free[i]) {
        for k in 0..5 {
            matrix[(i, k)] = 0.0;
            matrix[(k, i)] = 0.0;
        }
        matrix[(i, i)] = 1.0;
        right[i] = 0.0;
    }
    let step = matrix.cholesky()?.solve(&right);
    step.iter().all(|s| s.is_finite()).then_some(step)
}
