//! Lines of equal height through a grid: marching squares, the pieces joined end to end.

use crate::fit::diagnostics::Contour;
use std::collections::BTreeMap;

/// An edge of the grid: its lower corner and whether it runs along beta.
type Edge = (usize, usize, bool);

/// The lines on which the rise equals `limit`, as (alpha, beta); closed ones end where they begin.
pub(super) fn trace(contour: &Contour, limit: f64) -> Vec<Vec<(f64, f64)>> {
    let rise = |i: usize, j: usize| contour.rise[i][j];
    let place = |(i, j, along): Edge| {
        let (k, l) = if along { (i, j + 1) } else { (i + 1, j) };
        let share = (limit - rise(i, j)) / (rise(k, l) - rise(i, j));
        let between = |axis: &[f64], p: usize, q: usize| axis[p] + share * (axis[q] - axis[p]);
        (between(&contour.alpha, i, k), between(&contour.beta, j, l))
    };
    let mut next: BTreeMap<Edge, Vec<Edge>> = BTreeMap::new();
    for i in 0..contour.alpha.len() - 1 {
        for j in 0..contour.beta.len() - 1 {
            let corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)];
            let inside = corners.map(|(k, l)| rise(k, l) <= limit);
            let edges: [Edge; 4] = [(i, j, false), (i + 1, j, true), (i, j + 1, false), (i, j, true)];
            let mut crossed: Vec<Edge> =
                (0..4).filter(|&e| inside[e] != inside[(e + 1) % 4]).map(|e| edges[e]).collect();
            let centre = 0.25 * corners.iter().map(|&(k, l)| rise(k, l)).sum::<f64>();
            // At a saddle the middle says which opposite corners belong together; the lines cut off the other two.
            if crossed.len() == 4 && (centre <= limit) != inside[0] {
                crossed.rotate_right(1);
            }
            for pair in crossed.chunks_exact(2) {
                next.entry(pair[0]).or_default().push(pair[1]);
                next.entry(pair[1]).or_default().push(pair[0]);
            }
        }
    }
    let mut lines = Vec::new();
    // Lines that leave the grid first, from an end; then the closed ones.
    let ends: Vec<Edge> = next.iter().filter(|(_, to)| to.len() == 1).map(|(edge, _)| *edge).collect();
    for start in ends.into_iter().chain(next.keys().copied().collect::<Vec<_>>()) {
        let mut line = vec![start];
        let mut here = start;
        while let Some(to) = next.get_mut(&here).and_then(Vec::pop) {
            if let Some(back) = next.get_mut(&to)
                && let Some(k) = back.iter().position(|e| *e == here)
            {
                back.swap_remove(k);
            }
            line.push(to);
            here = to;
        }
        if line.len() > 1 {
            lines.push(line.into_iter().map(place).collect());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(height: impl Fn(f64, f64) -> f64) -> Contour {
        let axis: Vec<f64> = (0..41).map(|i| -2.0 + 0.1 * f64::from(i)).collect();
        let rise = axis.iter().map(|a| axis.iter().map(|b| height(*a, *b)).collect()).collect();
        Contour { alpha: axis.clone(), beta: axis, rise, best: [0.0; 2] }
    }

    #[test]
    fn a_round_hill_gives_one_closed_circle() {
        let lines = trace(&grid(|a, b| a * a + b * b), 1.0);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].first(), lines[0].last());
        assert!(lines[0].len() > 50);
        for (a, b) in &lines[0] {
            assert!(((a * a + b * b).sqrt() - 1.0).abs() < 0.01, "{a} {b}");
        }
    }

    #[test]
    fn two_hills_give_two_lines_and_a_slope_one_open_line() {
        let two = grid(|a, b| (a.abs() - 1.0).powi(2) + b * b);
        assert_eq!(trace(&two, 0.3).len(), 2);
        let slope = trace(&grid(|a, b| a + 0.5 * b), 0.03);
        assert_eq!(slope.len(), 1);
        assert!(slope[0].first() != slope[0].last() && slope[0].len() > 40);
        assert!(trace(&two, -1.0).is_empty());
    }

    #[test]
    fn a_saddle_is_cut_in_two() {
        let lines = trace(&grid(|a, b| a * b + 1e-3), 0.0);
        assert_eq!(lines.len(), 2);
    }
}
