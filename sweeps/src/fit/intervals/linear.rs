//! Resamples of very many runs without fitting any of them again: near its minimum an estimate moves linearly with the
//! weights of the runs, by the inverse Hessian times what the gradient changes by. Efron and Tibshirani 1993, section 22.
//!
//! What is left out is smaller than the interval by a factor of about the root of the number of runs. Runs are summed in
//! random blocks of equal size, which are resampled in their place: with independent runs this gives the same variance, and a
//! resample costs as much as there are blocks.

use super::resample::{FEWEST, GROUPS, Resampled, WORK};
use crate::fit::options::{FitOptions, IntervalMethod};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// With more runs than this resamples are linear. Up to it the default 1,000 resamples are fitted anew.
pub(crate) const LINEAR_ABOVE: usize = 100_000;
/// Blocks of a stratum, at most.
const BLOCKS: usize = 10_000;

/// Whether the intervals of so many runs rest on linear resamples.
pub(crate) fn is_linear(runs: usize) -> bool {
    runs > LINEAR_ABOVE
}

/// By how much the gradient of the objective changes in each resample, and when groups of runs are left out. `slope` is
/// the part of one run in the gradient.
pub(crate) fn shifts<const N: usize>(
    options: &FitOptions,
    strata: &[Vec<usize>],
    slope: impl Fn(usize) -> [f64; N],
) -> Resampled<[f64; N]> {
    // Their own stream, which no resample has.
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(u64::MAX);
    let mut sums: Vec<[f64; N]> = Vec::new();
    let mut ends = Vec::new();
    for members in strata.iter().filter(|m| !m.is_empty()) {
        let mut order = members.clone();
        order.shuffle(&mut rng);
        let blocks = order.len().min(BLOCKS);
        for b in 0..blocks {
            let mut sum = [0.0; N];
            for &i in &order[b * order.len() / blocks..(b + 1) * order.len() / blocks] {
                add(&mut sum, &slope(i), 1.0);
            }
            sums.push(sum);
        }
        ends.push(sums.len());
    }
    let mut total = [0.0; N];
    sums.iter().for_each(|sum| add(&mut total, sum, 1.0));
    let drawn = options.bootstrap.min((WORK / sums.len().max(1)).max(FEWEST));
    let resample = |k: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(k as u64);
        let (mut shift, mut from) = ([0.0; N], 0);
        add(&mut shift, &total, -1.0);
        for &to in &ends {
            for _ in from..to {
                add(&mut shift, &sums[rng.random_range(from..to)], 1.0);
            }
            from = to;
        }
        shift
    };
    let draws = (0..drawn).into_par_iter().map(resample).collect();
    let mut jackknife = Vec::new();
    if options.intervals == IntervalMethod::Bca && drawn > 0 {
        jackknife = vec![[0.0; N]; sums.len().min(GROUPS)];
        let groups = jackknife.len();
        for (b, sum) in sums.iter().enumerate() {
            add(&mut jackknife[b % groups], sum, -1.0);
        }
    }
    Resampled { drawn, draws, jackknife, linear: true }
}

fn add<const N: usize>(sum: &mut [f64; N], term: &[f64; N], times: f64) {
    for (s, t) in sum.iter_mut().zip(term) {
        *s += times * t;
    }
}

impl<T> Resampled<T> {
    /// What each resample gives.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Resampled<U> {
        Resampled {
            drawn: self.drawn,
            linear: self.linear,
            draws: self.draws.into_iter().map(&f).collect(),
            jackknife: self.jackknife.into_iter().map(&f).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_sums_is_that_of_independent_runs() {
        let slope = |i: usize| [((i * 7919) % 1001) as f64 / 500.0 - 1.0, 1.0];
        let n = 40_000;
        let wanted: f64 = (0..n).map(|i| slope(i)[0].powi(2)).sum();
        let options = FitOptions { bootstrap: 2000, intervals: IntervalMethod::Bca, ..FitOptions::default() };
        let halves = vec![(0..n / 2).collect(), (n / 2..n).collect()];
        for strata in [vec![(0..n).collect()], halves] {
            let found = shifts(&options, &strata, slope);
            assert_eq!((found.draws.len(), found.jackknife.len()), (2000, GROUPS));
            let variance = found.draws.iter().map(|d| d[0] * d[0]).sum::<f64>() / 2000.0;
            assert!((variance / wanted - 1.0).abs() < 0.12, "{variance} {wanted}");
            // Every resample has as many runs as there are, and the groups are all of them.
            assert!(found.draws.iter().all(|d| d[1].abs() < 1e-9));
            assert!((found.jackknife.iter().map(|g| g[1]).sum::<f64>() + n as f64).abs() < 1e-6);
            assert_eq!(found, shifts(&options, &strata, slope));
        }
    }
}
