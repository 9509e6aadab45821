//! Resampling of runs, with one random stream per resample so that threads cannot change the result.

use crate::fit::options::{FitOptions, IntervalMethod};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Groups of runs that the jackknife leaves out one at a time, at most.
pub(super) const GROUPS: usize = 400;
/// Runs times resamples that are worth the time; with more runs there are fewer resamples, though at least `FEWEST`.
pub(super) const WORK: usize = 100_000_000;
pub(super) const FEWEST: usize = 200;

/// Estimates from resamples, and from all runs but a few for [`IntervalMethod::Bca`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resampled<T> {
    /// Resamples drawn.
    pub drawn: usize,
    /// Those that gave an estimate.
    pub draws: Vec<T>,
    pub jackknife: Vec<T>,
    /// Whether no resample was fitted anew, each being a step from the fit.
    pub linear: bool,
}

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

/// Applies `estimate`, which is given how often each of `n` runs counts, to the resamples that the options ask for, or to
/// fewer where there are more than 100,000 runs.
pub(crate) fn resampled<T: Send>(
    options: &FitOptions,
    n: usize,
    strata: &[Vec<usize>],
    estimate: impl Fn(&[f64]) -> Option<T> + Sync + Send,
) -> Resampled<T> {
    let drawn = options.bootstrap.min((WORK / n.max(1)).max(FEWEST));
    let draws = apply(drawn, |k| estimate(&draw(options.seed, k, n, strata)));
    let mut jackknife = Vec::new();
    if options.intervals == IntervalMethod::Bca && options.bootstrap > 0 {
        let members: Vec<usize> = strata.iter().flatten().copied().collect();
        let groups = members.len().min(GROUPS).min(drawn);
        jackknife = apply(groups, |g| {
            let mut weights = vec![0.0; n];
            for (k, &i) in members.iter().enumerate() {
                weights[i] = f64::from(u8::from(k % groups != g));
            }
            estimate(&weights)
        });
    }
    Resampled { drawn, draws, jackknife, linear: false }
}

/// Applies `estimate` to each number in parallel and keeps the order.
fn apply<T: Send>(count: usize, estimate: impl Fn(usize) -> Option<T> + Sync + Send) -> Vec<T> {
    let found: Vec<Option<T>> = (0..count).into_par_iter().with_min_len(4).map(estimate).collect();
    found.into_iter().flatten().collect()
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
    fn the_jackknife_leaves_out_each_run_once() {
        let options = FitOptions { bootstrap: 30, intervals: IntervalMethod::Bca, ..FitOptions::default() };
        let found = resampled(&options, 5, &[(0..5).collect()], |w| Some(w.to_vec()));
        assert_eq!(found.jackknife.len(), 5);
        for (i, w) in found.jackknife.iter().enumerate() {
            assert!(w[i] == 0.0 && w.iter().sum::<f64>() == 4.0);
        }
    }
}
