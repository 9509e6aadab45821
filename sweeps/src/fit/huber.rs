//! The objective of approach 3 with its derivatives, and the Newton iteration that minimises it.
//!
//! log L is modelled as logsumexp(e, a - alpha x, b - beta y) with x = ln N and y = ln D taken about their means, so that
//! the five parameters theta = (e, a, b, alpha, beta) are of one scale. The objective is the SUM over runs of
//! Huber_delta(model - log L): a mean would shrink the gradient and end the iteration early. Hoffmann et al. 2022, eq. 3.

use nalgebra::{SMatrix, SVector};

pub(crate) type Vec5 = SVector<f64, 5>;
pub(crate) type Mat5 = SMatrix<f64, 5, 5>;

/// Runs as centred logarithms, with the times each is counted.
#[derive(Debug, Clone)]
pub(crate) struct Points {
    /// ln N - x_mean.
    pub x: Vec<f64>,
    /// ln D - y_mean.
    pub y: Vec<f64>,
    /// ln L.
    pub z: Vec<f64>,
    pub x_mean: f64,
    pub y_mean: f64,
}

impl Points {
    pub fn new(rows: impl Iterator<Item = (f64, f64, f64)>) -> Points {
        let (mut x, mut y, mut z) = (Vec::new(), Vec::new(), Vec::new());
        for (params, tokens, loss) in rows {
            x.push(params.ln());
            y.push(tokens.ln());
            z.push(loss.ln());
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
        let (x_mean, y_mean) = (mean(&x), mean(&y));
        x.iter_mut().for_each(|v| *v -= x_mean);
        y.iter_mut().for_each(|v| *v -= y_mean);
        Points { x, y, z, x_mean, y_mean }
    }

    pub fn len(&self) -> usize {
        self.z.len()
    }
}

/// Model minus measured log loss, and the shares of the three terms E, A / N^alpha, B / D^beta in the loss.
#[inline]
pub(crate) fn residual(theta: &Vec5, x: f64, y: f64, z: f64) -> (f64, [f64; 3]) {
    let u = [theta[0], theta[1] - theta[3] * x, theta[2] - theta[4] * y];
    let top = u[0].max(u[1]).max(u[2]);
    let exps = [(u[0] - top).exp(), (u[1] - top).exp(), (u[2] - top).exp()];
    let sum = exps[0] + exps[1] + exps[2];
    (top + sum.ln() - z, [exps[0] / sum, exps[1] / sum, exps[2] / sum])
}

#[inline]
fn huber(r: f64, delta: f64) -> f64 {
    if r.abs() <= delta { 0.5 * r * r } else { delta * (r.abs() - 0.5 * delta) }
}

/// Sum over runs of weight times Huber_delta of the log residual.
pub(crate) fn objective(points: &Points, weights: &[f64], theta: &Vec5, delta: f64) -> f64 {
    let mut sum = 0.0;
    for (i, &w) in weights.iter().enumerate() {
        if w > 0.0 {
            sum += w * huber(residual(theta, points.x[i], points.y[i], points.z[i]).0, delta);
        }
    }
    sum
}

/// Value, gradient, Hessian, and the Hessian of the quadratic that lies above the Huber terms (weights
/// min(1, delta / |r|), Gauss-Newton), which is positive semidefinite and serves as the metric of the damping.
pub(crate) fn derivatives(
    points: &Points,
    weights: &[f64],
    theta: &Vec5,
    delta: f64,
) -> (f64, Vec5, Mat5, Mat5) {
    let (mut value, mut gradient) = (0.0, Vec5::zeros());
    let (mut hessian, mut metric) = (Mat5::zeros(), Mat5::zeros());
    for (i, &w) in weights.iter().enumerate() {
        if w == 0.0 {
            continue;
        }
        let (x, y) = (points.x[i], points.y[i]);
        let (r, [p0, p1, p2]) = residual(theta, x, y, points.z[i]);
        value += w * huber(r, delta);
        let psi = w * r.clamp(-delta, delta);
        let inside = if r.abs() <= delta { w } else { 0.0 };
        let majorant = if r.abs() <= delta { w } else { w * delta / r.abs() };
        let j = [p0, p1, p2, -x * p1, -y * p2];
        // Second derivatives of logsumexp: diag(p) - p p^T, seen through d u / d theta.
        for row in 0..5 {
            gradient[row] += psi * j[row];
            for col in 0..=row {
                let jj = j[row] * j[col];
                hessian[(row, col)] += (inside - psi) * jj;
                metric[(row, col)] += majorant * jj;
            }
        }
        hessian[(0, 0)] += psi * p0;
        hessian[(1, 1)] += psi * p1;
        hessian[(2, 2)] += psi * p2;
        hessian[(3, 1)] -= psi * x * p1;
        hessian[(4, 2)] -= psi * y * p2;
        hessian[(3, 3)] += psi * x * x * p1;
        hessian[(4, 4)] += psi * y * y * p2;
    }
    for row in 0..5 {
        for col in 0..row {
            hessian[(col, row)] = hessian[(row, col)];
            metric[(col, row)] = metric[(row, col)];
        }
    }
    (value, gradient, hessian, metric)
}

/// The box theta must stay in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub low: Vec5,
    pub high: Vec5,
}

/// Largest exponent searched; fits of language models lie between 0.05 and 1.
pub(crate) const EXPONENT_MAX: f64 = 4.0;
pub(crate) const EXPONENT_MIN: f64 = 1e-3;

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

    pub fn clamp(&self, theta: &Vec5) -> Vec5 {
        theta.zip_zip_map(&self.low, &self.high, |t, low, high| t.clamp(low, high))
    }

    /// Which parameters sit on their bound.
    pub fn touching(&self, theta: &Vec5) -> [bool; 5] {
        std::array::from_fn(|i| theta[i] <= self.low[i] || theta[i] >= self.high[i])
    }
}

fn span(v: &[f64]) -> f64 {
    let low = v.iter().copied().fold(f64::INFINITY, f64::min);
    v.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low
}

/// Where an iteration ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minimum {
    pub theta: Vec5,
    pub value: f64,
    /// Whether the gradient, less its part that pushes against a bound, is small.
    pub converged: bool,
}

/// Newton's method with analytic second derivatives in a box. Each step solves (H + lambda M) s = -g, M the metric of
/// [`derivatives`]: lambda -> 0 is a Newton step. Where H + lambda M is not positive definite, far from the minimum, the
/// step is (1 + lambda) M s = -g, reweighted Gauss-Newton.
pub(crate) fn minimise(
    points: &Points,
    weights: &[f64],
    start: &Vec5,
    bounds: &Bounds,
    delta: f64,
    iterations: usize,
) -> Minimum {
    let total: f64 = weights.iter().sum();
    let tight = 1e-12 * delta * total;
    let loose = 1e-6 * delta * total;
    let mut theta = bounds.clamp(start);
    let (mut value, mut gradient, mut hessian, mut metric) = derivatives(points, weights, &theta, delta);
    let mut lambda = 0.3;
    for _ in 0..iterations {
        let free: [bool; 5] = std::array::from_fn(|i| {
            !(theta[i] <= bounds.low[i] && gradient[i] > 0.0
                || theta[i] >= bounds.high[i] && gradient[i] < 0.0)
        });
        if (0..5).all(|i| !free[i] || gradient[i].abs() <= tight) {
            break;
        }
        let step = damped_step(&gradient, &(hessian + metric * lambda), &metric, lambda, &free)
            .or_else(|| damped_step(&gradient, &(metric * (1.0 + lambda)), &metric, lambda, &free));
        let Some(step) = step else {
            lambda *= 8.0;
            if lambda > 1e12 {
                break;
            }
            continue;
        };
        let next = bounds.clamp(&(theta + step));
        let moved = next - theta;
        let expected = -(gradient.dot(&moved) + 0.5 * (moved.transpose() * hessian * moved)[(0, 0)]);
        let trial = objective(points, weights, &next, delta);
        let gained = value - trial;
        if gained > 0.0 {
            lambda *= if gained > 0.75 * expected {
                0.2
            } else if gained > 0.25 * expected {
                1.0
            } else {
                3.0
            };
            theta = next;
            (value, gradient, hessian, metric) = derivatives(points, weights, &theta, delta);
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
    let converged = (0..5).all(|i| {
        let outward =
            theta[i] <= bounds.low[i] && gradient[i] > 0.0 || theta[i] >= bounds.high[i] && gradient[i] < 0.0;
        outward || gradient[i].abs() <= loose
    });
    Minimum { theta, value, converged }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Points, Vec<f64>) {
        let rows = (0..24).map(|i| {
            let (n, d) = (1e6 * 1.9f64.powi(i % 6), 1e8 * 2.3f64.powi(i / 6));
            let bump = 1.0 + 0.004 * ((i * 7) % 5) as f64;
            (n, d, (1.7 + 400.0 / n.powf(0.34) + 410.0 / d.powf(0.28)) * bump)
        });
        let points = Points::new(rows);
        let weights = (0..24).map(|i| (i % 3) as f64).collect();
        (points, weights)
    }

    #[test]
    fn gradient_and_hessian_agree_with_finite_differences() {
        let (points, weights) = sample();
        let theta = Vec5::new(0.5, 0.3, 0.2, 0.3, 0.25);
        // A wide Huber keeps every residual on the smooth side of its corner.
        for delta in [1.0, 1e-3] {
            let (_, gradient, hessian, _) = derivatives(&points, &weights, &theta, delta);
            let h = 1e-6;
            for i in 0..5 {
                let mut up = theta;
                let mut down = theta;
                up[i] += h;
                down[i] -= h;
                let slope = (objective(&points, &weights, &up, delta)
                    - objective(&points, &weights, &down, delta))
                    / (2.0 * h);
                let scale = gradient.amax();
                assert!((slope - gradient[i]).abs() < 1e-6 * scale, "{i}: {slope} {}", gradient[i]);
                let bend = (derivatives(&points, &weights, &up, delta).1
                    - derivatives(&points, &weights, &down, delta).1)
                    / (2.0 * h);
                for k in 0..5 {
                    assert!((bend[k] - hessian[(i, k)]).abs() < 1e-6 * hessian.amax(), "{i} {k}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_vanishes_at_the_minimum() {
        let (points, weights) = sample();
        let bounds = Bounds::of(&points);
        let end = minimise(&points, &weights, &Vec5::new(0.5, 0.3, 0.2, 0.3, 0.25), &bounds, 1e-3, 300);
        assert!(end.converged);
        let gradient = derivatives(&points, &weights, &end.theta, 1e-3).1;
        assert!(gradient.amax() < 1e-8, "{gradient}");
    }
}
