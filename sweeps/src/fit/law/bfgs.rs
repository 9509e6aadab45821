//! The published search: the 4,500 starts of Hoffmann et al. 2022, appendix D.3, each minimised by BFGS.

use super::newton::Problem;
use super::points::{Mat5, Vec5};
use super::sum;
use rayon::prelude::*;

/// A start has ended when its slopes are this share of what they are the sum of, or three steps in a row gain
/// less than this share of the objective; Newton's method then finishes the best.
const TOLERANCE: f64 = 1e-4;
const GAIN: f64 = 1e-6;
/// Iterations of one start; those that need more are in flat places that lead nowhere.
const ITERATIONS: usize = 150;

/// The published starts in the order alpha, beta, e, a, b, as theta about the means of the points.
pub(crate) fn published(x_mean: f64, y_mean: f64) -> Vec<Vec5> {
    let half = |k: usize| 0.5 * k as f64;
    let five = |k: usize| 5.0 * k as f64;
    let mut out = Vec::with_capacity(4500);
    for k in 0..5 * 5 * 5 * 6 * 6 {
        let (b, a, e) = (five(k % 6), five(k / 6 % 6), half(k / 36 % 5) - 1.0);
        let (beta, alpha) = (half(k / 180 % 5), half(k / 900));
        out.push(Vec5::new(e, a - alpha * x_mean, b - beta * y_mean, alpha, beta));
    }
    out
}

/// The ends of all published starts, best first, at most `count`.
pub(crate) fn search(problem: &Problem, weights: &[f64], count: usize) -> Vec<Vec5> {
    let starts = published(problem.points.x_mean, problem.points.y_mean);
    let mut ends: Vec<(f64, Vec5)> =
        starts.par_iter().with_min_len(16).map(|start| bfgs(problem, weights, start)).collect();
    ends.retain(|(value, _)| value.is_finite());
    ends.sort_by(|p, q| p.0.total_cmp(&q.0));
    ends.into_iter().take(count).map(|(_, theta)| theta).collect()
}

/// BFGS with a line search by quadratic interpolation. Nocedal and Wright 2006, algorithm 6.1.
fn bfgs(problem: &Problem, weights: &[f64], start: &Vec5) -> (f64, Vec5) {
    let at = |theta: &Vec5| sum::slope(problem.points, weights, theta, problem.measure);
    let mut theta = problem.clamp(start);
    let mut d = at(&theta);
    let mut inverse = metric(problem, weights, &theta);
    let mut fresh = true;
    let mut idle = 0;
    for _ in 0..ITERATIONS {
        if d.gradient.amax() <= TOLERANCE * d.scale {
            break;
        }
        let mut step = -(inverse * d.gradient);
        let mut downhill = step.dot(&d.gradient);
        if downhill >= 0.0 {
            inverse = metric(problem, weights, &theta);
            fresh = true;
            step = -(inverse * d.gradient);
            downhill = step.dot(&d.gradient);
        }
        // The first step of a fresh matrix knows no length: an exponent should not move by more than a tenth.
        let mut length = (2.0 / step.amax()).min(1.0);
        let mut taken = None;
        for _ in 0..25 {
            let next = problem.clamp(&(theta + step * length));
            let e = at(&next);
            if e.value <= d.value + 1e-4 * length * downhill {
                taken = Some((next, e));
                break;
            }
            let curve = e.value - d.value - length * downhill;
            length *= (-0.5 * length * downhill / curve).clamp(0.1, 0.5);
        }
        let Some((next, e)) = taken else {
            if fresh {
                break;
            }
            inverse = metric(problem, weights, &theta);
            fresh = true;
            continue;
        };
        let (s, y) = (next - theta, e.gradient - d.gradient);
        let gained = d.value - e.value;
        let sy = s.dot(&y);
        if sy > 1e-10 * s.norm() * y.norm() {
            let left = Mat5::identity() - s * y.transpose() / sy;
            inverse = left * inverse * left.transpose() + s * s.transpose() / sy;
            fresh = false;
        }
        (theta, d) = (next, e);
        idle = if gained <= GAIN * d.value { idle + 1 } else { 0 };
        if idle == 3 {
            break;
        }
    }
    (d.value, theta)
}

/// The inverse of the metric with a little more on its diagonal: the first curvature that BFGS is told.
fn metric(problem: &Problem, weights: &[f64], theta: &Vec5) -> Mat5 {
    let mut metric = sum::derivatives(problem.points, weights, theta, problem.measure).metric;
    let trace = metric.trace();
    for k in 0..5 {
        metric[(k, k)] = 1.01 * metric[(k, k)] + 1e-6 * trace;
    }
    metric.cholesky().map_or(Mat5::identity(), |c| c.inverse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_starts_are_4500_different_ones() {
        let mut found: Vec<[u64; 5]> =
            published(20.0, 25.0).iter().map(|t| std::array::from_fn(|k| t[k].to_bits())).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 4500);
    }
}
