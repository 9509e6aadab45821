//! The law of Kaplan et al. 2020, eq. 1.5, at all runs: L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D.
//!
//! theta = (n, d, rho, alpha_D, unused): log L = alpha_D ln(exp(n - rho x) + exp(d - y)), rho = alpha_N / alpha_D, with x
//! and y about their means.

use super::points::{Derivatives, Mat5, Measure, Points, Vec5};
use super::projection::nnls;

/// (log L, its terms' shares of the sum, ln of the sum).
fn at(theta: &Vec5, x: f64, y: f64) -> (f64, [f64; 2], f64) {
    let u = [theta[0] - theta[2] * x, theta[1] - y];
    let top = u[0].max(u[1]);
    let exps = u.map(|u| (u - top).exp());
    let sum = exps[0] + exps[1];
    let level = top + sum.ln();
    (theta[3] * level, exps.map(|e| e / sum), level)
}

/// The residual and the shares of the two terms; there is no third.
pub(crate) fn residual(points: &Points, theta: &Vec5, i: usize, linear: bool) -> (f64, [f64; 3]) {
    let (log, [p, q], _) = at(theta, points.x[i], points.y[i]);
    let r = if linear { log.exp() - points.loss[i] } else { log - points.z[i] };
    (r, [p, q, 1.0])
}

/// The residual at one run and its slopes.
pub(crate) fn row(points: &Points, theta: &Vec5, i: usize, linear: bool) -> (f64, Vec5) {
    let x = points.x[i];
    let (log, [p, q], level) = at(theta, x, points.y[i]);
    let slopes = Vec5::new(theta[3] * p, theta[3] * q, -theta[3] * x * p, level, 0.0);
    match linear {
        true => (log.exp() - points.loss[i], slopes * log.exp()),
        false => (log - points.z[i], slopes),
    }
}

/// Sum over runs of weight times Huber_delta of the residual.
pub(crate) fn value(points: &Points, weights: &[f64], theta: &Vec5, measure: Measure) -> f64 {
    let mut sum = 0.0;
    for (i, &w) in weights.iter().enumerate() {
        let r = residual(points, theta, i, measure.linear).0;
        let psi = r.clamp(-measure.delta, measure.delta);
        sum += w * psi * (r - 0.5 * psi);
    }
    sum
}

/// The value with all derivatives.
pub(crate) fn derivatives(points: &Points, weights: &[f64], theta: &Vec5, measure: Measure) -> Derivatives {
    let mut out = Derivatives::zero();
    for (i, &w) in weights.iter().enumerate() {
        let (x, y) = (points.x[i], points.y[i]);
        let (log, [p, q], level) = at(theta, x, y);
        let loss = if measure.linear { log.exp() } else { 1.0 };
        let r = if measure.linear { loss - points.loss[i] } else { log - points.z[i] };
        let psi = r.clamp(-measure.delta, measure.delta);
        out.value += w * psi * (r - 0.5 * psi);
        let slope = w * psi * loss;
        out.scale += slope.abs();
        // s: slopes of ln of the sum; j: slopes of log L.
        let s = Vec5::new(p, q, -x * p, 0.0, 0.0);
        let mut j = s * theta[3];
        j[3] = level;
        out.gradient += j * slope;
        let mut bent = Mat5::zeros();
        bent[(0, 0)] = p;
        bent[(2, 0)] = -x * p;
        bent[(0, 2)] = -x * p;
        bent[(2, 2)] = x * x * p;
        bent[(1, 1)] = q;
        bent = (bent - s * s.transpose()) * theta[3];
        for k in 0..3 {
            bent[(3, k)] = s[k];
            bent[(k, 3)] = s[k];
        }
        let jj = j * j.transpose();
        if measure.linear {
            bent += jj;
        }
        let square = w * loss * loss;
        let inside = if r.abs() <= measure.delta { square } else { 0.0 };
        out.hessian += jj * inside + bent * slope;
        out.metric += jj * (square * (measure.delta / r.abs().max(1e-300)).min(1.0));
    }
    out
}

/// Exponents tried on each axis by [`starts`].
const STEPS: usize = 14;

/// For each pair of exponents the two scales are a linear problem in L^(1 / alpha_D); the best pairs, best first.
pub(crate) fn starts(points: &Points, weights: &[f64], count: usize) -> Vec<Vec5> {
    let exponent = |k: usize| 0.02 * 60f64.powf(k as f64 / (STEPS - 1) as f64);
    // A start needs no more than some thousand runs.
    let every = points.len().div_ceil(4096);
    let chosen: Vec<usize> = (0..points.len()).step_by(every).collect();
    let mut found: Vec<(f64, Vec5)> = Vec::new();
    for (alpha_n, alpha_d) in (0..STEPS * STEPS).map(|k| (exponent(k / STEPS), exponent(k % STEPS))) {
        let rho = alpha_n / alpha_d;
        let (mut gram, mut right, mut square) = ([[0.0; 3]; 3], [0.0; 3], 0.0);
        for &i in &chosen {
            // Columns over L^(1 / alpha_D), times alpha_D: their errors are near those of log L.
            let relative = -points.z[i] / alpha_d;
            let row = [-rho * points.x[i], -points.y[i]].map(|u| alpha_d * (u + relative).exp());
            for r in 0..2 {
                (0..2).for_each(|c| gram[r][c] += weights[i] * row[r] * row[c]);
                right[r] += weights[i] * row[r] * alpha_d;
            }
            square += weights[i] * alpha_d * alpha_d;
        }
        let (c, error) = nnls(&gram, &right, square, [true, true, false]);
        if c[0] > 0.0 && c[1] > 0.0 && error.is_finite() {
            found.push((error, Vec5::new(c[0].ln(), c[1].ln(), rho, alpha_d, 0.0)));
        }
    }
    found.sort_by(|p, q| p.0.total_cmp(&q.0));
    found.into_iter().take(count).map(|(_, theta)| theta).collect()
}
