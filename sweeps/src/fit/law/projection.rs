//! Starts by variable projection: for each pair of exponents the best coefficients are a linear problem with
//! coefficients from zero up. Golub and Pereyra 1973; Lawson and Hanson 1974 for the signs.

use super::points::{Points, Vec5};

const STEPS: usize = 16;
const LEAST: f64 = 0.04;
const MOST: f64 = 2.2;
/// Runs whose columns are held in memory at once.
const BLOCK: usize = 512;

/// A start and whether it lies at an end of the searched exponents or has a zero coefficient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub theta: Vec5,
    pub boundary: bool,
    /// Sum of squared errors.
    pub error: f64,
}

/// Which coefficients and exponents are searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Search {
    /// A fixed E; none to estimate it.
    pub level: Option<f64>,
    /// alpha = this times beta; none to search both.
    pub ratio: Option<f64>,
    /// Whether there is a term in D.
    pub tokens: bool,
    /// Errors of the loss itself, not relative ones.
    pub linear: bool,
}

/// The columns of a data set, made once for all its resamples.
pub(crate) struct Projection<'a> {
    points: &'a Points,
    search: Search,
    exponents: [f64; STEPS],
    /// For up to [`BLOCK`] runs: their columns.
    cached: Option<Columns>,
}

/// exp(-p x) and exp(-p y) for each exponent p, a constant and the loss, all divided by the loss unless `linear`.
struct Columns {
    sizes: Vec<Vec<f64>>,
    tokens: Vec<Vec<f64>>,
    one: Vec<f64>,
    loss: Vec<f64>,
}

/// Inner products of the columns.
struct Products {
    one: [f64; 2],
    loss: f64,
    /// With itself, with the constant, with the loss.
    sizes: [[f64; 3]; STEPS],
    tokens: [[f64; 3]; STEPS],
    cross: [[f64; STEPS]; STEPS],
}

impl<'a> Projection<'a> {
    pub fn new(points: &'a Points, search: Search) -> Projection<'a> {
        let ratio = (MOST / LEAST).powf(1.0 / (STEPS - 1) as f64);
        let exponents = std::array::from_fn(|i| LEAST * ratio.powi(i as i32));
        let mut out = Projection { points, search, exponents, cached: None };
        if points.len() <= BLOCK {
            out.cached = Some(out.columns(0, points.len()));
        }
        out
    }

    fn columns(&self, from: usize, to: usize) -> Columns {
        let inverse: Vec<f64> = match self.search.linear {
            true => vec![1.0; to - from],
            false => self.points.loss[from..to].iter().map(|l| 1.0 / l).collect(),
        };
        let of = |v: &[f64], scale: f64| -> Vec<Vec<f64>> {
            let column = |&p: &f64| {
                v[from..to].iter().zip(&inverse).map(|(x, w)| (-scale * p * x).exp() * w).collect()
            };
            self.exponents.iter().map(column).collect()
        };
        Columns {
            sizes: of(&self.points.x, self.search.ratio.unwrap_or(1.0)),
            tokens: of(&self.points.y, 1.0),
            loss: self.points.loss[from..to].iter().zip(&inverse).map(|(l, w)| l * w).collect(),
            one: inverse,
        }
    }

    fn products(&self, weights: &[f64]) -> Products {
        let mut sums = Products {
            one: [0.0; 2],
            loss: 0.0,
            sizes: [[0.0; 3]; STEPS],
            tokens: [[0.0; 3]; STEPS],
            cross: [[0.0; STEPS]; STEPS],
        };
        match &self.cached {
            Some(columns) => add(&mut sums, columns, weights, self.search),
            None => {
                for from in (0..weights.len()).step_by(BLOCK) {
                    let to = (from + BLOCK).min(weights.len());
                    add(&mut sums, &self.columns(from, to), &weights[from..to], self.search);
                }
            }
        }
        sums
    }

    /// The local minima of the projected error over a logarithmic grid of (alpha, beta), best first, at most `count`.
    pub fn starts(&self, weights: &[f64], count: usize) -> Vec<Start> {
        let sums = self.products(weights);
        let mut grid = [[([0.0; 3], f64::INFINITY); STEPS]; STEPS];
        for (i, row) in grid.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate().filter(|(j, _)| self.searched(i, *j)) {
                *cell = self.project(&sums, i, j);
            }
        }
        let mut found = Vec::new();
        for i in 0..STEPS {
            for j in (0..STEPS).filter(|&j| self.searched(i, j)) {
                let error = grid[i][j].1;
                let near = |k: usize| k.saturating_sub(1)..=(k + 1).min(STEPS - 1);
                let lowest = match self.search.ratio {
                    Some(_) => near(i).all(|k| grid[k][k].1 >= error),
                    None => near(i).all(|k| near(j).all(|l| grid[k][l].1 >= error)),
                };
                if lowest && error.is_finite() {
                    found.push(self.start(i, j, grid[i][j]));
                }
            }
        }
        found.sort_by(|p, q| p.error.total_cmp(&q.error));
        found.truncate(count);
        found
    }

    fn searched(&self, i: usize, j: usize) -> bool {
        match (self.search.ratio, self.search.tokens) {
            (Some(_), _) => i == j,
            (None, false) => j == 0,
            (None, true) => true,
        }
    }

    /// Coefficients of E, A, B for exponents i and j, and their error.
    fn project(&self, sums: &Products, i: usize, j: usize) -> ([f64; 3], f64) {
        let (n, d) = (&sums.sizes[i], &sums.tokens[j]);
        let cross = sums.cross[i][j];
        let gram = [[sums.one[0], n[1], d[1]], [n[1], n[0], cross], [d[1], cross, d[0]]];
        let right = [sums.one[1], n[2], d[2]];
        let mut allowed = [self.search.level.is_none(), true, self.search.tokens];
        let Some(level) = self.search.level else {
            return nnls(&gram, &right, sums.loss, allowed);
        };
        allowed[0] = false;
        let less = [0, 1, 2].map(|k| right[k] - level * gram[0][k]);
        let square = sums.loss - 2.0 * level * right[0] + level * level * gram[0][0];
        nnls(&gram, &less, square, allowed)
    }

    fn start(&self, i: usize, j: usize, ([e, a, b], error): ([f64; 3], f64)) -> Start {
        let least = self.points.z.iter().copied().fold(f64::INFINITY, f64::min);
        let log = |c: f64| if c > 0.0 { c.ln().max(least - 7.0) } else { least - 7.0 };
        let end = |k: usize| k == 0 || k == STEPS - 1;
        let s = &self.search;
        let alpha = self.exponents[i] * s.ratio.unwrap_or(1.0);
        let boundary =
            end(i) || s.tokens && (end(j) || b <= 0.0) || s.level.is_none() && e <= 0.0 || a <= 0.0;
        let level = s.level.map_or(log(e), |l| if l > 0.0 { l.ln() } else { -700.0 });
        let (b, beta) = if s.tokens { (log(b), self.exponents[j]) } else { (-700.0, 0.0) };
        Start { theta: Vec5::new(level, log(a), b, alpha, beta), boundary, error }
    }
}

/// Adds the products of a block.
fn add(sums: &mut Products, c: &Columns, weights: &[f64], search: Search) {
    let dot = |a: &[f64], b: &[f64]| {
        // Four sums at once, in a fixed order.
        let mut lanes = [0.0; 4];
        let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
        let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in a4.zip(b4) {
            for k in 0..4 {
                lanes[k] += x[k] * y[k];
            }
        }
        (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest
    };
    let weigh = |v: &[f64]| -> Vec<f64> { v.iter().zip(weights).map(|(v, w)| v * w).collect() };
    let (one, loss) = (weigh(&c.one), weigh(&c.loss));
    sums.one[0] += dot(&one, &c.one);
    sums.one[1] += dot(&one, &c.loss);
    sums.loss += dot(&loss, &c.loss);
    for i in 0..STEPS {
        let weighed = weigh(&c.sizes[i]);
        sums.sizes[i][0] += dot(&weighed, &c.sizes[i]);
        sums.sizes[i][1] += dot(&one, &c.sizes[i]);
        sums.sizes[i][2] += dot(&loss, &c.sizes[i]);
        if !search.tokens {
            continue;
        }
        sums.tokens[i][0] += c.tokens[i].iter().zip(weights).map(|(v, w)| v * v * w).sum::<f64>();
        sums.tokens[i][1] += dot(&one, &c.tokens[i]);
        sums.tokens[i][2] += dot(&loss, &c.tokens[i]);
        for j in 0..STEPS {
            if search.ratio.is_none() || i == j {
                sums.cross[i][j] += dot(&weighed, &c.tokens[j]);
            }
        }
    }
}

/// Minimises c.G c - 2 c.r + `square` over c >= 0, zero where not `allowed`, by trying the sets of positive
/// coefficients, largest first. Returns the coefficients and the least value.
pub(crate) fn nnls(
    gram: &[[f64; 3]; 3],
    right: &[f64; 3],
    square: f64,
    allowed: [bool; 3],
) -> ([f64; 3], f64) {
    let mask = (0..3).fold(0u8, |m, k| m | u8::from(allowed[k]) << k);
    let mut best = ([0.0; 3], square);
    for set in [7u8, 3, 5, 6, 1, 2, 4] {
        if set & !mask != 0 {
            continue;
        }
        let Some(solution) = solve(gram, right, set) else { continue };
        if solution.iter().any(|&c| c < 0.0) {
            continue;
        }
        // At the solution c.G c = c.r.
        let value = square - (0..3).map(|k| solution[k] * right[k]).sum::<f64>();
        if value < best.1 {
            best = (solution, value);
        }
        if set == mask {
            break;
        }
    }
    (best.0, best.1.max(0.0))
}

/// Solves the normal equations for the members of `set` only, the columns scaled to one; none when they are dependent.
fn solve(gram: &[[f64; 3]; 3], right: &[f64; 3], set: u8) -> Option<[f64; 3]> {
    let member = |k: usize| set >> k & 1 == 1;
    let mut scale = [1.0; 3];
    let mut m = [[0.0; 4]; 3];
    for k in 0..3 {
        scale[k] = if member(k) { gram[k][k].sqrt() } else { 1.0 };
    }
    for r in 0..3 {
        for c in 0..3 {
            let inside = member(r) && member(c);
            m[r][c] = if inside { gram[r][c] / (scale[r] * scale[c]) } else { f64::from(u8::from(r == c)) };
        }
        m[r][3] = if member(r) { right[r] / scale[r] } else { 0.0 };
    }
    for k in 0..3 {
        // The matrix is positive semidefinite: a small pivot means dependent columns.
        if m[k][k].is_nan() || m[k][k] < 1e-11 {
            return None;
        }
        for r in k + 1..3 {
            let (pivot, f) = (m[k], m[r][k] / m[k][k]);
            m[r].iter_mut().zip(pivot).skip(k).for_each(|(entry, p)| *entry -= f * p);
        }
    }
    let mut solution = [0.0; 3];
    for k in (0..3).rev() {
        let rest: f64 = (k + 1..3).map(|c| m[k][c] * solution[c]).sum();
        solution[k] = (m[k][3] - rest) / m[k][k];
    }
    (0..3).for_each(|k| solution[k] /= scale[k]);
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
        let (c, _) = nnls(&gram, &right, 10.0, [true; 3]);
        assert!((0..3).all(|k| (c[k] - wanted[k]).abs() < 1e-12), "{c:?}");
        let (c, value) = nnls(&gram, &[1.0, -1.0, 0.3], 10.0, [true; 3]);
        assert_eq!(c[1], 0.0);
        // Optimality: at a zero coefficient the gradient points inwards; elsewhere it vanishes.
        let slope = |k: usize| (0..3).map(|j| gram[k][j] * c[j]).sum::<f64>() - [1.0, -1.0, 0.3][k];
        assert!(slope(0).abs() < 1e-12 && slope(1) > 0.0 && slope(2).abs() < 1e-12);
        assert!(value < 10.0);
        let (c, _) = nnls(&gram, &right, 10.0, [false, true, true]);
        assert!(c[0] == 0.0 && c[1] > 0.0);
    }

    #[test]
    fn the_best_start_is_near_the_law() {
        let rows = (0..36).map(|i| {
            let (n, d) = (1e7 * 2f64.powi(i % 6), 1e9 * 2f64.powi(i / 6));
            (n, d, 1.7 + 400.0 / n.powf(0.34) + 410.0 / d.powf(0.28))
        });
        let points = Points::new(rows);
        let search = Search { level: None, ratio: None, tokens: true, linear: false };
        let found = Projection::new(&points, search).starts(&[1.0; 36], 4);
        assert!(found[0].error < 1e-3 && !found[0].boundary);
        assert!((found[0].theta[3] - 0.34).abs() < 0.12 && (found[0].theta[4] - 0.28).abs() < 0.12);
        let fixed = Projection::new(&points, Search { level: Some(1.7), ..search }).starts(&[1.0; 36], 1);
        assert!((fixed[0].theta[0] - 1.7f64.ln()).abs() < 1e-12);
        let tied = Projection::new(&points, Search { ratio: Some(1.0), ..search }).starts(&[1.0; 36], 1);
        assert_eq!(tied[0].theta[3], tied[0].theta[4]);
    }
}
