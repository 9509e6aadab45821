//! How far a single run is from the law, and what an M-estimator makes of it.

use crate::fit::checks::median;
use crate::fit::intervals::cumulative;
use crate::fit::noise::of_repeats;
use crate::fit::parametric::Sample;
use crate::fit::simulate::Noise;
use serde::Serialize;
use std::collections::BTreeMap;

/// Robust standard deviations per median absolute deviation of a normal distribution.
const MAD: f64 = 1.4826;

/// What the noise of a run was read off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseFrom {
    /// Residuals of the fitted runs.
    Residuals,
    /// Runs of equal N and D.
    Repeats,
}

/// The robust deviation of log residuals of a law with so many estimated parameters: the median of the absolute ones but
/// for the smallest `parameters` - 1, which the law may go through, raised by what the fit takes off residuals on average.
/// DuMouchel and O'Brien 1989.
pub(super) fn of_residuals(residuals: &[f64], parameters: usize) -> f64 {
    let mut sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let first = parameters.saturating_sub(1).min(sizes.len().saturating_sub(1));
    let n = sizes.len() as f64;
    let leverage = (parameters as f64 / n).min(0.9);
    MAD * median(sizes.split_off(first)) / (1.0 - leverage).sqrt()
}

/// The noise that repeats show, with its growth in compute; none without repeats, or where they agree to the last bit.
pub(super) fn of_seeds(samples: &[Sample]) -> Option<Noise> {
    let found = of_repeats(samples).filter(|n| n.deviation > 0.0)?;
    let mut sets: BTreeMap<(u64, u64), Vec<f64>> = BTreeMap::new();
    for s in samples {
        sets.entry((s.params.to_bits(), s.tokens.to_bits())).or_default().push(s.flops.ln());
    }
    let logs: Vec<f64> = sets.into_values().filter(|set| set.len() > 1).flatten().collect();
    let middle = logs.iter().sum::<f64>() / logs.len() as f64;
    Some(Noise { deviation: found.deviation, growth: found.growth, flops: middle.exp() })
}

/// The variance of an estimate by Huber terms over that by squares, for normal noise of deviation 1 and a quadratic part of
/// half width `delta`: E psi^2 / (E psi')^2. Huber 1964. 1 for squares, pi / 2 for absolute values.
pub(super) fn inflation(delta: f64) -> f64 {
    if delta > 8.0 {
        return 1.0;
    }
    let inside = 2.0 * cumulative(delta) - 1.0;
    let density = (-0.5 * delta * delta).exp() / std::f64::consts::TAU.sqrt();
    let square = inside - 2.0 * delta * density + delta * delta * (1.0 - inside);
    square / (inside * inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huber_terms_lie_between_squares_and_absolute_values() {
        assert!((inflation(1e-6) / (0.5 * std::f64::consts::PI) - 1.0).abs() < 1e-4, "{}", inflation(1e-6));
        assert!((inflation(8.1) - 1.0).abs() < 1e-9 && (inflation(7.9) - 1.0).abs() < 1e-9);
        // 95 % efficient at 1.345, the usual choice.
        assert!((1.0 / inflation(1.345) - 0.95).abs() < 1e-3, "{}", inflation(1.345));
    }

    #[test]
    fn residuals_that_the_law_goes_through_do_not_count() {
        // Five zeros of a law through five of nine runs, and one outlier.
        let residuals = [0.0, 0.0, 0.0, 0.0, 0.0, 0.01, -0.01, 0.01, 3.0];
        assert!((of_residuals(&residuals, 5) - MAD * 0.01 * 1.5).abs() < 1e-12);
        assert_eq!(of_residuals(&[0.0; 3], 5), 0.0);
    }

    #[test]
    fn repeats_say_at_which_compute_their_noise_is() {
        let run = |params: f64, loss: f64| Sample {
            record: 0,
            params,
            tokens: 1e9,
            flops: 6e9 * params,
            budget: None,
            loss,
            weight: 1.0,
        };
        let samples = [run(1e6, 3.0), run(1e6, 3.03), run(1e8, 2.5), run(1e8, 2.52), run(1e10, 2.0)];
        let noise = of_seeds(&samples).unwrap();
        assert!((noise.flops / 6e16 - 1.0).abs() < 1e-9 && noise.growth == 0.0 && noise.deviation > 0.004);
        assert_eq!(of_seeds(&samples[1..3]), None);
    }
}
