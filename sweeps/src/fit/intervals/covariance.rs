//! The sandwich covariance of an M-estimator. Huber and Ronchetti 2009, section 6.3.

use crate::fit::checks::median;
use crate::fit::law::{Problem, Vec5};
use nalgebra::SMatrix;

type Mat5 = SMatrix<f64, 5, 5>;

/// The covariance of theta and the objective's scale.
#[derive(Debug, Clone)]
pub(crate) struct Sandwich {
    pub theta: Mat5,
    /// Twice a rise of the objective over this is about chi-squared: mean of psi^2 over mean of psi'.
    pub dispersion: f64,
}

/// The covariance at a minimum; none where the data do not determine theta.
///
/// The slope of psi, the share of residuals within delta, is read off a wider window when delta is narrow beside the
/// residuals: with 35 runs a window of delta may hold two of them.
pub(crate) fn sandwich(problem: &Problem, weights: &[f64], theta: &Vec5) -> Option<Sandwich> {
    let n = problem.points.len();
    let freedom = n as f64 - problem.hold.count() as f64;
    if freedom <= 0.0 {
        return None;
    }
    let delta = problem.measure.delta;
    let rows: Vec<(f64, Vec5)> = (0..n).map(|i| problem.row(theta, i)).collect();
    let spread = 1.4826 * median(rows.iter().map(|(r, _)| r.abs()).collect());
    let window = delta.max(1.06 * spread * (n as f64).powf(-0.2));
    let share = rows.iter().filter(|(r, _)| r.abs() <= window).count() as f64 / n as f64;
    let slope = if delta.is_finite() { share * delta / window } else { 1.0 };
    let (mut bread, mut filling, mut squares, mut total) = (Mat5::zeros(), Mat5::zeros(), 0.0, 0.0);
    for ((r, j), w) in rows.iter().zip(weights) {
        let psi = r.clamp(-delta, delta);
        bread += j * j.transpose() * (w * slope);
        filling += j * j.transpose() * (w * psi).powi(2);
        squares += w * psi * psi;
        total += w;
    }
    let free: Vec<usize> = (0..5).filter(|&i| bread[(i, i)] > 0.0).collect();
    if free.len() != problem.hold.count() {
        return None;
    }
    for i in (0..5).filter(|i| !free.contains(i)) {
        bread[(i, i)] = 1.0;
    }
    let inverse = bread.cholesky()?.inverse();
    let mut covariance = inverse * filling * inverse * (n as f64 / freedom);
    if let Some(ratio) = problem.hold.ratio {
        for k in 0..5 {
            covariance[(3, k)] = ratio * covariance[(4, k)];
        }
        for k in 0..5 {
            covariance[(k, 3)] = ratio * covariance[(k, 4)];
        }
    }
    let dispersion = squares / total / slope * n as f64 / freedom;
    let sound = covariance.iter().all(|v| v.is_finite()) && dispersion.is_finite() && dispersion > 0.0;
    sound.then_some(Sandwich { theta: covariance, dispersion })
}
