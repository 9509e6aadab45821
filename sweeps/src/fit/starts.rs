//! Starts for approach 3 by variable projection: for each (alpha, beta) the best E, A, B >= 0 are a linear problem.

use super::huber::{Points, Vec5};

const STEPS: usize = 16;
const LEAST: f64 = 0.04;
const MOST: f64 = 2.2;

/// A start and whether it lies at an end of the searched exponents or has a zero coefficient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub theta: Vec5,
    pub boundary: bool,
    /// Sum of squared relative errors.
    pub error: f64,
}

/// The local minima of the projected error over a logarithmic grid of (alpha, beta), best first, at most `count`.
pub(crate) fn starts(points: &Points, count: usize) -> Vec<Start> {
    let ratio = (MOST / LEAST).powf(1.0 / (STEPS - 1) as f64);
    let exponents: Vec<f64> = (0..STEPS).map(|i| LEAST * ratio.powi(i as i32)).collect();
    // Columns are divided by the loss, so that the squares are of relative errors, near those of the log.
    let inverse: Vec<f64> = points.z.iter().map(|z| (-z).exp()).collect();
    let columns = |v: &[f64]| -> Vec<Vec<f64>> {
        let column = |&p: &f64| v.iter().zip(&inverse).map(|(x, w)| (-p * x).exp() * w).collect();
        exponents.iter().map(column).collect()
    };
    let (by_size, by_tokens) = (columns(&points.x), columns(&points.y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let sum = |a: &[f64]| a.iter().sum::<f64>();
    let one = (dot(&inverse, &inverse), sum(&inverse));
    let side = |c: &Vec<f64>| (dot(c, c), dot(c, &inverse), sum(c));
    let sizes: Vec<_> = by_size.iter().map(side).collect();
    let tokens: Vec<_> = by_tokens.iter().map(side).collect();
    let mut grid = vec![([0.0; 3], f64::INFINITY); STEPS * STEPS];
    for i in 0..STEPS {
        for j in 0..STEPS {
            let cross = dot(&by_size[i], &by_tokens[j]);
            let gram = [
                [one.0, sizes[i].1, tokens[j].1],
                [sizes[i].1, sizes[i].0, cross],
                [tokens[j].1, cross, tokens[j].0],
            ];
            let right = [one.1, sizes[i].2, tokens[j].2];
            grid[i * STEPS + j] = nnls3(&gram, &right, points.len() as f64);
        }
    }
    let mut found = Vec::new();
    for i in 0..STEPS {
        for j in 0..STEPS {
            let (coefficients, error) = grid[i * STEPS + j];
            let lowest = (i.saturating_sub(1)..=(i + 1).min(STEPS - 1))
                .flat_map(|k| (j.saturating_sub(1)..=(j + 1).min(STEPS - 1)).map(move |l| k * STEPS + l))
                .all(|k| grid[k].1 >= error);
            if lowest && error.is_finite() {
                let least = points.z.iter().copied().fold(f64::INFINITY, f64::min);
                let log = |c: f64| if c > 0.0 { c.ln().max(least - 7.0) } else { least - 7.0 };
                let [e, a, b] = coefficients;
                let end = |k: usize| k == 0 || k == STEPS - 1;
                found.push(Start {
                    theta: Vec5::new(log(e), log(a), log(b), exponents[i], exponents[j]),
                    boundary: end(i) || end(j) || coefficients.iter().any(|&c| c <= 0.0),
                    error,
                });
            }
        }
    }
    found.sort_by(|p, q| p.error.total_cmp(&q.error));
    found.truncate(count);
    found
}

/// Minimises |G^(1/2) c - ...|^2 = c.G c - 2 c.r + `square` over c >= 0 by trying every set of positive coefficients.
/// Returns the coefficients and the least value.
fn nnls3(gram: &[[f64; 3]; 3], right: &[f64; 3], square: f64) -> ([f64; 3], f64) {
    let mut best = ([0.0; 3], square);
    for set in 1..8u8 {
        let members: Vec<usize> = (0..3).filter(|k| set >> k & 1 == 1).collect();
        let Some(solution) = solve(gram, right, &members) else { continue };
        if solution.iter().any(|&c| c < 0.0) {
            continue;
        }
        // At the solution c.G c = c.r.
        let value = square - (0..3).map(|k| solution[k] * right[k]).sum::<f64>();
        if value < best.1 {
            best = (solution, value);
        }
    }
    (best.0, best.1.max(0.0))
}

/// Solves the normal equations for the members only, the columns scaled to one; none when they are dependent.
fn solve(gram: &[[f64; 3]; 3], right: &[f64; 3], members: &[usize]) -> Option<[f64; 3]> {
    let n = members.len();
    let scale: Vec<f64> = members.iter().map(|&k| gram[k][k].sqrt()).collect();
    let mut m = [[0.0; 4]; 3];
    for r in 0..n {
        for c in 0..n {
            m[r][c] = gram[members[r]][members[c]] / (scale[r] * scale[c]);
        }
        m[r][3] = right[members[r]] / scale[r];
    }
    for k in 0..n {
        // The matrix is positive semidefinite: a small pivot means dependent columns.
        if m[k][k] < 1e-11 {
            return None;
        }
        for r in k + 1..n {
            let (pivot, f) = (m[k], m[r][k] / m[k][k]);
            m[r].iter_mut().zip(pivot).skip(k).for_each(|(entry, p)| *entry -= f * p);
        }
    }
    let mut solution = [0.0; 3];
    for k in (0..n).rev() {
        let rest: f64 = (k + 1..n).map(|c| m[k][c] * solution[members[c]] * scale[c]).sum();
        solution[members[k]] = (m[k][3] - rest) / m[k][k] / scale[k];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nnls_agrees_with_the_unconstrained_answer_and_clips_negative_ones() {
        let gram = [[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]];
        let wanted = [0.7, 0.4, 0.9];
        let right: [f64; 3] = std::array::from_fn(|i| (0..3).map(|j| gram[i][j] * wanted[j]).sum());
        let (c, _) = nnls3(&gram, &right, 10.0);
        assert!((0..3).all(|k| (c[k] - wanted[k]).abs() < 1e-12), "{c:?}");
        let (c, value) = nnls3(&gram, &[1.0, -1.0, 0.3], 10.0);
        assert_eq!(c[1], 0.0);
        // Optimality: at a zero coefficient the gradient points inwards; elsewhere it vanishes.
        let slope = |k: usize| (0..3).map(|j| gram[k][j] * c[j]).sum::<f64>() - [1.0, -1.0, 0.3][k];
        assert!(slope(0).abs() < 1e-12 && slope(1) > 0.0 && slope(2).abs() < 1e-12);
        assert!(value < 10.0);
    }

    #[test]
    fn the_best_start_is_near_the_law() {
        let rows = (0..36).map(|i| {
            let (n, d) = (1e7 * 2f64.powi(i % 6), 1e9 * 2f64.powi(i / 6));
            (n, d, 1.7 + 400.0 / n.powf(0.34) + 410.0 / d.powf(0.28))
        });
        let found = starts(&Points::new(rows), 4);
        assert!(found[0].error < 1e-3 && !found[0].boundary);
        assert!((found[0].theta[3] - 0.34).abs() < 0.12 && (found[0].theta[4] - 0.28).abs() < 0.12);
    }
}
