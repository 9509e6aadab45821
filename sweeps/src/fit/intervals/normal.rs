//! The standard normal distribution and its quantiles.

/// P(Z < z). Marsaglia 2004, "Evaluating the normal distribution"; the series converges for every z, and beyond 8
/// nothing is left of the tail.
pub(crate) fn cumulative(z: f64) -> f64 {
    if z.is_nan() || z.abs() > 8.0 {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut k) = (z, z, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        k += 2.0;
        term *= z * z / k;
        sum += term;
    }
    0.5 + sum * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

/// The z below which a share `p` lies; p in (0, 1). Bisection: it is asked for seldom.
pub(crate) fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cumulative(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_values_come_out() {
        for (z, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (-1.959_963_984_540_054, 0.025),
            (3.0, 0.998_650_101_968_37),
        ] {
            assert!((cumulative(z) - p).abs() < 1e-13, "{z}");
            assert!((quantile(p) - z).abs() < 1e-9, "{p}");
        }
        assert_eq!((cumulative(9.0), cumulative(f64::NEG_INFINITY)), (1.0, 0.0));
    }
}
