//! Resampling of runs, with one random stream per resample so that threads cannot change the result.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// A quantity of an estimate that gets an interval, with its name in fit.json.
pub(crate) type Named<T> = (&'static str, fn(&T) -> f64);

/// Resamples of `n` things: how often each is drawn. `strata` holds index lists that are resampled one by one (their
/// union need not be everything). Resample k depends on `seed` and k only.
pub(crate) fn draw(seed: u64, resample: usize, n: usize, strata: &[Vec<usize>]) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(resample as u64);
    let mut counts = vec![0.0; n];
    for members in strata {
        for _ in 0..members.len() {
            counts[members[rng.random_range(0..members.len())]] += 1.0;
        }
    }
    counts
}

/// Applies `estimate` to every resample's number in parallel and keeps the order.
pub(crate) fn resample<T: Send>(
    resamples: usize,
    estimate: impl Fn(usize) -> Option<T> + Sync + Send,
) -> Vec<T> {
    (0..resamples)
        .into_par_iter()
        .with_min_len(8)
        .map(estimate)
        .collect::<Vec<_>>()
        .into_iter()
        .flatten()
        .collect()
}

/// The central interval that holds `level` of the values, linear between order statistics; none for fewer than 20 or
/// for an end beyond the range of numbers.
pub(crate) fn interval(values: &[f64], level: f64) -> Option<[f64; 2]> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if sorted.len() < 20 {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let position = q * (sorted.len() - 1) as f64;
        let (low, share) = (position.floor() as usize, position.fract());
        sorted[low] + share * (sorted[(low + 1).min(sorted.len() - 1)] - sorted[low])
    };
    let ends = [at(0.5 * (1.0 - level)), at(0.5 * (1.0 + level))];
    ends.iter().all(|e| e.is_finite()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_keep_their_sizes_and_streams_differ() {
        let strata = vec![vec![0, 1, 2], vec![3, 4, 5, 6, 7]];
        let first = draw(7, 0, 9, &strata);
        assert_eq!(first[..3].iter().sum::<f64>(), 3.0);
        assert_eq!(first[3..8].iter().sum::<f64>(), 5.0);
        assert_eq!(first[8], 0.0);
        assert_eq!(first, draw(7, 0, 9, &strata));
        assert!((1..9).any(|k| draw(7, k, 9, &strata) != first));
    }

    #[test]
    fn intervals_are_percentiles() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let [low, high] = interval(&values, 0.9).unwrap();
        assert!((low - 5.0).abs() < 1e-9 && (high - 95.0).abs() < 1e-9);
        assert_eq!(interval(&values[..10], 0.9), None);
    }
}
