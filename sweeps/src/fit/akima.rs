//! The minimum of Akima's interpolation: cubics between points whose slopes are local means, so that one bad point bends
//! its neighbours only. Akima 1970; used on log losses over ln N by Porian et al. 2024.

/// (x, y) of the least value between the points, which are in increasing x; none with fewer than three, or where the
/// least is an end.
pub(crate) fn minimum(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len();
    if n < 3 {
        return None;
    }
    let slopes = slopes(points);
    let mut best = (points[0].0, f64::INFINITY);
    for i in 0..n - 1 {
        let (x, y) = points[i];
        let (width, rise) = (points[i + 1].0 - x, points[i + 1].1 - y);
        let secant = rise / width;
        // y + b u + c u^2 + d u^3 with u from 0 to `width`.
        let b = slopes[i];
        let c = (3.0 * secant - 2.0 * slopes[i] - slopes[i + 1]) / width;
        let d = (slopes[i] + slopes[i + 1] - 2.0 * secant) / (width * width);
        let at = |u: f64| y + u * (b + u * (c + u * d));
        let mut candidates = vec![0.0, width];
        if d.abs() * width < 1e-12 * c.abs() {
            candidates.push(-b / (2.0 * c));
        } else {
            let root = (c * c - 3.0 * b * d).max(0.0).sqrt();
            candidates.extend([(-c + root) / (3.0 * d), (-c - root) / (3.0 * d)]);
        }
        for u in candidates.into_iter().filter(|u| (0.0..=width).contains(u)) {
            if at(u) < best.1 {
                best = (x + u, at(u));
            }
        }
    }
    (best.0 > points[0].0 && best.0 < points[n - 1].0 && best.1.is_finite()).then_some(best)
}

/// The slope at each point: the mean of the secants beside it, each weighted by how much the two on the other side differ.
fn slopes(points: &[(f64, f64)]) -> Vec<f64> {
    let secants: Vec<f64> = points.windows(2).map(|p| (p[1].1 - p[0].1) / (p[1].0 - p[0].0)).collect();
    // Two more on each side, by Akima's quadratic.
    let (first, last) = (secants[0], secants[secants.len() - 1]);
    let (second, before) = (secants[1], secants[secants.len() - 2]);
    let mut m = vec![3.0 * first - 2.0 * second, 2.0 * first - second];
    m.extend(&secants);
    m.extend([2.0 * last - before, 3.0 * last - 2.0 * before]);
    (0..points.len())
        .map(|i| {
            let (left, right) = ((m[i + 1] - m[i]).abs(), (m[i + 3] - m[i + 2]).abs());
            match left + right > 0.0 {
                true => (right * m[i + 1] + left * m[i + 2]) / (left + right),
                false => 0.5 * (m[i + 1] + m[i + 2]),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parabola_is_found_nearly_and_its_ends_are_no_minimum() {
        let points: Vec<_> = (0..8).map(|i| (f64::from(i), (f64::from(i) - 3.3).powi(2) + 1.0)).collect();
        let (x, y) = minimum(&points).unwrap();
        assert!((x - 3.3).abs() < 0.02 && (y - 1.0).abs() < 0.02, "{x} {y}");
        assert_eq!(minimum(&points[4..]), None);
        assert_eq!(minimum(&points[..2]), None);
    }

    #[test]
    fn straight_lines_stay_straight() {
        let points: Vec<_> =
            [4.0, 2.0, 0.0, 3.0, 6.0].iter().enumerate().map(|(i, y)| (i as f64, *y)).collect();
        let found = slopes(&points);
        assert_eq!((found[0], found[1], found[4]), (-2.0, -2.0, 3.0));
        // At the corner itself the two sides have equal say.
        assert_eq!(found[2], 0.5);
    }
}
