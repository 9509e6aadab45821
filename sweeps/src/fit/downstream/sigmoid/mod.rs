//! The second step: accuracy as a sigmoid of the task's loss, floor + (ceiling - floor) / (1 + exp(k (L - midpoint))),
//! fitted by variable projection in floor and ceiling and Newton's method on all four.

use crate::fit::result::FitStatus;
use nalgebra::{SMatrix, SVector};
use serde::{Deserialize, Serialize};

pub(super) type Vec4 = SVector<f64, 4>;
type Mat4 = SMatrix<f64, 4, 4>;

/// Steps of the grid of starts in k and in the midpoint.
const STEEPNESSES: usize = 16;
const MIDPOINTS: usize = 24;
/// Starts of a fit, and of a fit to a resample, which has the fit itself as another.
const STARTS: usize = 5;
const STARTS_AGAIN: usize = 2;
/// Of more runs than this, evenly chosen ones are searched for starts, and a resample starts from the fit only.
const SOME: usize = 4096;
/// k times the range of the losses: from a straight line to a step between two runs.
const FLATTEST: f64 = 0.1;
const STEEPEST: f64 = 300.0;
/// The midpoint lies at most so many ranges of the losses below the least, and never below a loss of 0.
const REACH: f64 = 10.0;

/// Accuracy as a function of the task's loss. Bhagia et al. 2024, eq. 2, with k > 0: accuracy falls as the loss rises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sigmoid {
    /// Accuracy at a large loss: that of a guess. A share from 0 to 1.
    pub floor: f64,
    /// Accuracy at a small loss, from the floor to 1.
    pub ceiling: f64,
    /// Steepness, per unit of the loss.
    pub k: f64,
    /// The loss at which accuracy is halfway from floor to ceiling.
    pub midpoint: f64,
}

impl Sigmoid {
    /// Accuracy, a share, at a loss of the task.
    pub fn accuracy(&self, loss: f64) -> f64 {
        self.floor + (self.ceiling - self.floor) / (1.0 + (self.k * (loss - self.midpoint)).exp())
    }

    /// The parameters by their names in fit.json.
    pub(crate) fn named(&self) -> [(&'static str, f64); 4] {
        [("floor", self.floor), ("ceiling", self.ceiling), ("k", self.k), ("midpoint", self.midpoint)]
    }
}

/// A fitted sigmoid and how it was reached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub sigmoid: Sigmoid,
    /// Sum of Huber terms of the residual accuracy, or of its squares.
    pub objective: f64,
    pub status: FitStatus,
    /// Parameters on their bounds.
    pub at_bound: Vec<&'static str>,
    /// (floor, ceiling, ln of k times the range, midpoint in ranges from the mean).
    theta: Vec4,
}

/// Losses with accuracies, what is held, and the width of the Huber terms.
pub(crate) struct Sigmoids {
    /// (loss - mean) / range.
    u: Vec<f64>,
    accuracy: Vec<f64>,
    mean: f64,
    range: f64,
    /// Floor and ceiling, where given.
    held: [Option<f64>; 2],
    /// Infinite for squares.
    delta: f64,
    low: Vec4,
    high: Vec4,
    /// The shares 1 / (1 + exp(..)) of some runs for every place of the grid.
    grid: Vec<Vec<f64>>,
    step: usize,
}

/// The objective near one theta.
struct Near {
    value: f64,
    gradient: Vec4,
    hessian: Mat4,
    /// Gauss-Newton with weights min(1, delta / |r|): above the objective, and positive semidefinite.
    metric: Mat4,
    /// Sums of the absolute slopes that add up to the gradient.
    scale: Vec4,
}

#[derive(Clone, Copy)]
struct End {
    theta: Vec4,
    value: f64,
    converged: bool,
}

impl Sigmoids {
    /// Of losses that differ, with an accuracy each.
    pub fn new(losses: &[f64], accuracies: &[f64], held: [Option<f64>; 2], delta: f64) -> Sigmoids {
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let most = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let range = (most - least).max(1e-12);
        let [top, bottom] = [most, least].map(|l| (l - mean) / range);
        let lowest = (bottom - REACH).max(-mean / range);
        let low = Vec4::new(0.0, 0.0, FLATTEST.ln(), lowest);
        let high = Vec4::new(1.0, 1.0, STEEPEST.ln(), top + 1.0);
        let u: Vec<f64> = losses.iter().map(|l| (l - mean) / range).collect();
        let step = u.len().div_ceil(SOME).max(1);
        let mut found = Sigmoids {
            u,
            accuracy: accuracies.to_vec(),
            mean,
            range,
            held,
            delta,
            low,
            high,
            grid: Vec::new(),
            step,
        };
        let places = (0..STEEPNESSES * MIDPOINTS).map(|p| found.place(p));
        found.grid = places
            .map(|(kappa, middle)| {
                found.u.iter().step_by(step).map(|u| share(kappa.exp() * (u - middle))).collect()
            })
            .collect();
        found
    }

    /// ln k and the midpoint of a place of the grid.
    fn place(&self, place: usize) -> (f64, f64) {
        let share = |i: usize, n: usize| i as f64 / (n - 1) as f64;
        let kappa = (0.7f64).ln() + share(place / MIDPOINTS, STEEPNESSES) * (80.0f64 / 0.7).ln();
        let (bottom, top) = (self.high[3] - 2.0, self.high[3] - 1.0);
        let from = (bottom - 1.5).max(self.low[3]);
        (kappa, from + share(place % MIDPOINTS, MIDPOINTS) * (top + 0.3 - from))
    }

    /// The places of the grid whose neighbours are no better, each with the best floor and ceiling there.
    fn starts(&self, weights: &[f64], count: usize) -> Vec<Vec4> {
        let some: Vec<(f64, f64)> =
            weights.iter().copied().zip(self.accuracy.iter().copied()).step_by(self.step).collect();
        let at: Vec<([f64; 2], f64)> = self.grid.iter().map(|s| project(s, &some, self.held)).collect();
        let mut found: Vec<(f64, Vec4)> = Vec::new();
        for place in 0..at.len() {
            let (i, j) = (place / MIDPOINTS, place % MIDPOINTS);
            let near = |k: usize, n: usize| k.saturating_sub(1)..=(k + 1).min(n - 1);
            let mut around = near(i, STEEPNESSES).flat_map(|p| near(j, MIDPOINTS).map(move |q| (p, q)));
            let ([floor, ceiling], error) = at[place];
            if error.is_finite() && around.all(|(p, q)| at[p * MIDPOINTS + q].1 >= error) {
                let (kappa, middle) = self.place(place);
                found.push((error, Vec4::new(floor, ceiling, kappa, middle)));
            }
        }
        found.sort_by(|p, q| p.0.total_cmp(&q.0));
        found.into_iter().take(count).map(|(_, theta)| theta).collect()
    }

    fn near(&self, weights: &[f64], theta: &Vec4) -> Near {
        let (floor, gap, k) = (theta[0], theta[1] - theta[0], theta[2].exp());
        let mut out = Near {
            value: 0.0,
            gradient: Vec4::zeros(),
            hessian: Mat4::zeros(),
            metric: Mat4::zeros(),
            scale: Vec4::zeros(),
        };
        for ((&u, &y), &w) in self.u.iter().zip(&self.accuracy).zip(weights) {
            if w == 0.0 {
                continue;
            }
            let z = k * (u - theta[3]);
            let s = share(z);
            let first = -s * (1.0 - s);
            let second = first * (2.0 * s - 1.0);
            let r = floor + gap * s - y;
            let psi = r.clamp(-self.delta, self.delta);
            let j = Vec4::new(1.0 - s, s, gap * first * z, -gap * first * k);
            out.value += w * psi * (r - 0.5 * psi);
            out.gradient += j * (w * psi);
            out.scale += j.abs() * (w * psi.abs());
            let inside = r.abs() <= self.delta;
            let outer = j * j.transpose();
            out.metric += outer * if inside { w } else { w * self.delta / r.abs() };
            if inside {
                out.hessian += outer * w;
            }
            let mut bend = Mat4::zeros();
            (bend[(0, 2)], bend[(0, 3)]) = (-first * z, first * k);
            (bend[(1, 2)], bend[(1, 3)]) = (first * z, -first * k);
            bend[(2, 2)] = gap * (second * z * z + first * z);
            bend[(2, 3)] = -gap * k * (second * z + first);
            bend[(3, 3)] = gap * second * k * k;
            bend.fill_lower_triangle_with_upper_triangle();
            out.hessian += bend * (w * psi);
        }
        out
    }

    fn value(&self, weights: &[f64], theta: &Vec4) -> f64 {
        let (floor, gap, k) = (theta[0], theta[1] - theta[0], theta[2].exp());
        let term = |((u, y), w): ((&f64, &f64), &f64)| {
            let r = floor + gap * share(k * (u - theta[3])) - y;
            let psi = r.clamp(-self.delta, self.delta);
            w * psi * (r - 0.5 * psi)
        };
        self.u.iter().zip(&self.accuracy).zip(weights).map(term).sum()
    }

    fn clamp(&self, theta: &Vec4) -> Vec4 {
        let mut out = *theta;
        for i in 0..4 {
            out[i] = out[i].clamp(self.low[i], self.high[i]);
        }
        for (i, held) in self.held.iter().enumerate() {
            out[i] = held.unwrap_or(out[i]);
        }
        // The ceiling is no lower than the floor.
        match self.held[1] {
            Some(ceiling) => out[0] = out[0].min(ceiling),
            None => out[1] = out[1].max(out[0]),
        }
        out
    }

    /// Which parameters may move downhill.
    fn movable(&self, theta: &Vec4, gradient: &Vec4) -> [bool; 4] {
        std::array::from_fn(|i| {
            let held = i < 2 && self.held[i].is_some();
            let below = theta[i] <= self.low[i] || i == 1 && theta[1] <= theta[0];
            let above = theta[i] >= self.high[i] || i == 0 && theta[0] >= theta[1];
            !(held || below && gradient[i] > 0.0 || above && gradient[i] < 0.0)
        })
    }

    /// A step that ends in the box: a parameter that would leave it goes to its bound, and the others are solved for again.
    fn step(
        &self,
        theta: &Vec4,
        near: &Near,
        matrix: Mat4,
        lambda: f64,
        movable: &[bool; 4],
    ) -> Option<Vec4> {
        let mut given: [Option<f64>; 4] = movable.map(|free| (!free).then_some(0.0));
        loop {
            let step = damped(near, matrix, lambda, &given)?;
            let bound = |i: usize| (theta[i] + step[i]).clamp(self.low[i], self.high[i]) - theta[i];
            match (0..4).find(|&i| given[i].is_none() && bound(i) != step[i]) {
                Some(i) if (bound(i) - step[i]).abs() > 1e-12 => given[i] = Some(bound(i)),
                _ => return Some(step),
            }
        }
    }

    /// Newton's method; where the Hessian is not positive definite, reweighted Gauss-Newton.
    fn minimise(&self, weights: &[f64], start: &Vec4, tolerance: f64, iterations: usize) -> End {
        let mut theta = self.clamp(start);
        let mut near = self.near(weights, &theta);
        let total: f64 = weights.iter().sum();
        let mut lambda = 0.1;
        let small = |near: &Near, movable: &[bool; 4], tolerance: f64| {
            (0..4).all(|i| {
                !movable[i] || near.gradient[i].abs() <= (tolerance * near.scale[i]).max(1e-15 * total)
            })
        };
        for _ in 0..iterations {
            let movable = self.movable(&theta, &near.gradient);
            if small(&near, &movable, tolerance) {
                break;
            }
            let newton = near.hessian + near.metric * lambda;
            let step = self
                .step(&theta, &near, newton, lambda, &movable)
                .or_else(|| self.step(&theta, &near, near.metric * (1.0 + lambda), lambda, &movable));
            let next = step.map(|step| self.clamp(&(theta + step)));
            let better = next.filter(|next| self.value(weights, next) < near.value);
            match better {
                Some(next) => {
                    theta = next;
                    near = self.near(weights, &theta);
                    lambda *= 0.2;
                }
                None => {
                    let still = next.is_some_and(|next| (next - theta).amax() <= 1e-14);
                    lambda = (lambda * 6.0).max(1e-6);
                    if still || lambda > 1e12 {
                        break;
                    }
                }
            }
        }
        let converged = small(&near, &self.movable(&theta, &near.gradient), 1e-5);
        End { theta, value: near.value, converged }
    }

    fn best(&self, weights: &[f64], starts: &[Vec4], tolerance: f64) -> Option<End> {
        let ends = starts.iter().map(|start| self.minimise(weights, start, tolerance, 200));
        ends.filter(|e| e.value.is_finite()).min_by(|p, q| p.value.total_cmp(&q.value))
    }

    /// The best sigmoid; `weights` say how often each run counts.
    pub fn solve(&self, weights: &[f64]) -> Option<Found> {
        let end = self.best(weights, &self.starts(weights, STARTS), 1e-12)?;
        let at_bound = self.at_bound(&end.theta);
        let status = match (at_bound.is_empty(), end.converged) {
            (false, _) => FitStatus::AtBound,
            (true, false) => FitStatus::Abnormal,
            (true, true) => FitStatus::Converged,
        };
        let objective = if self.delta.is_finite() { end.value } else { 2.0 * end.value };
        Some(Found { sigmoid: self.sigmoid(&end.theta), objective, status, at_bound, theta: end.theta })
    }

    /// The fit to a resample.
    pub fn again(&self, weights: &[f64], near: &Found) -> Option<Sigmoid> {
        if weights.iter().all(|w| *w == 0.0) {
            return None;
        }
        let mut starts = if self.step == 1 { self.starts(weights, STARTS_AGAIN) } else { Vec::new() };
        starts.push(near.theta);
        Some(self.sigmoid(&self.best(weights, &starts, 1e-6)?.theta))
    }

    /// The inverse of the Hessian at a fit, in what is free there; none where the objective is flat.
    pub fn inverse(&self, weights: &[f64], found: &Found) -> Option<Mat4> {
        let near = self.near(weights, &found.theta);
        let (movable, theta) = (self.movable(&found.theta, &near.gradient), &found.theta);
        let mut hessian = near.hessian;
        let inside = |i: usize| theta[i] > self.low[i] && theta[i] < self.high[i];
        let held: Vec<usize> = (0..4).filter(|&i| !movable[i] || !inside(i)).collect();
        for &i in &held {
            hessian.row_mut(i).fill(0.0);
            hessian.column_mut(i).fill(0.0);
            hessian[(i, i)] = 1.0;
        }
        let mut inverse = hessian.cholesky()?.inverse();
        held.iter().for_each(|&i| inverse[(i, i)] = 0.0);
        Some(inverse)
    }

    /// The part of one run in the gradient.
    pub fn slope(&self, weight: f64, found: &Found, i: usize) -> Vec4 {
        let theta = &found.theta;
        let (gap, k) = (theta[1] - theta[0], theta[2].exp());
        let z = k * (self.u[i] - theta[3]);
        let s = share(z);
        let first = -s * (1.0 - s);
        let psi = (theta[0] + gap * s - self.accuracy[i]).clamp(-self.delta, self.delta);
        Vec4::new(1.0 - s, s, gap * first * z, -gap * first * k) * (weight * psi)
    }

    /// The sigmoid once the gradient has changed by `shift`.
    pub fn moved(&self, found: &Found, inverse: &Mat4, shift: &Vec4) -> Sigmoid {
        self.sigmoid(&self.clamp(&(found.theta - inverse * shift)))
    }

    fn at_bound(&self, theta: &Vec4) -> Vec<&'static str> {
        let names = ["floor", "ceiling", "k", "midpoint"];
        let touches = |i: &usize| {
            let held = *i < 2 && self.held[*i].is_some();
            let level = theta[1] <= theta[0] && (*i == 1 || *i == 0 && self.held[1].is_some());
            !held && (theta[*i] <= self.low[*i] || theta[*i] >= self.high[*i] || level)
        };
        (0..4).filter(touches).map(|i| names[i]).collect()
    }

    fn sigmoid(&self, theta: &Vec4) -> Sigmoid {
        Sigmoid {
            floor: theta[0],
            ceiling: theta[1],
            k: theta[2].exp() / self.range,
            midpoint: self.mean + theta[3] * self.range,
        }
    }
}

/// 1 / (1 + exp(z)).
fn share(z: f64) -> f64 {
    1.0 / (1.0 + z.exp())
}

/// Solves matrix s = -gradient, the steps of some parameters given; none where the matrix is not positive definite.
fn damped(near: &Near, mut matrix: Mat4, lambda: f64, given: &[Option<f64>; 4]) -> Option<Vec4> {
    let ridge = 1e-10 * near.metric.trace() + 1e-300;
    matrix += Mat4::identity() * (ridge * lambda);
    let fixed = Vec4::from_fn(|i, _| given[i].unwrap_or(0.0));
    let mut right = -near.gradient - matrix * fixed;
    for i in (0..4).filter(|&i| given[i].is_some()) {
        matrix.row_mut(i).fill(0.0);
        matrix.column_mut(i).fill(0.0);
        matrix[(i, i)] = 1.0;
        right[i] = fixed[i];
    }
    let step = matrix.cholesky()?.solve(&right);
    step.iter().all(|s| s.is_finite()).then_some(step)
}

/// Floor and ceiling with 0 <= floor <= ceiling <= 1 of least squared error for given shares, and that error.
/// `runs` are weights with accuracies.
fn project(shares: &[f64], runs: &[(f64, f64)], held: [Option<f64>; 2]) -> ([f64; 2], f64) {
    // Sums of w, w s, w s^2, w y, w s y, w y^2.
    let mut m = [0.0; 6];
    for (s, (w, y)) in shares.iter().zip(runs) {
        let (ws, wy) = (w * s, w * y);
        for (sum, term) in m.iter_mut().zip([*w, ws, ws * s, wy, ws * y, wy * y]) {
            *sum += term;
        }
    }
    let (pp, pq, qq) = (m[0] - 2.0 * m[1] + m[2], m[1] - m[2], m[2]);
    let (py, qy) = (m[3] - m[4], m[4]);
    let error = |[f, c]: [f64; 2]| {
        (m[5] + f * (f * pp - 2.0 * py) + c * (c * qq - 2.0 * qy) + 2.0 * f * c * pq).max(0.0)
    };
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let ceiling_for = |f: f64| ratio(qy - f * pq, qq).clamp(f, 1.0);
    let floor_for = |c: f64| ratio(py - c * pq, pp).clamp(0.0, c);
    let candidates = match held {
        [Some(f), Some(c)] => vec![[f, c]],
        [Some(f), None] => vec![[f, ceiling_for(f)]],
        [None, Some(c)] => vec![[floor_for(c), c]],
        [None, None] => {
            let determinant = pp * qq - pq * pq;
            let inside = [(py * qq - qy * pq) / determinant, (qy * pp - py * pq) / determinant];
            if determinant > 1e-12 * pp * qq && 0.0 <= inside[0] && inside[0] <= inside[1] && inside[1] <= 1.0
            {
                vec![inside]
            } else {
                let level = ratio(m[3], m[0]).clamp(0.0, 1.0);
                vec![[0.0, ceiling_for(0.0)], [floor_for(1.0), 1.0], [level, level]]
            }
        }
    };
    let each = candidates.into_iter().map(|c| (c, error(c)));
    each.min_by(|p, q| p.1.total_cmp(&q.1)).unwrap_or(([0.0, 1.0], f64::INFINITY))
}

#[cfg(test)]
mod tests;
