//! Intervals of any quantity of an estimate, read off its resamples.

use super::normal::{cumulative, quantile};
use super::resample::Resampled;
use crate::fit::options::{FitOptions, IntervalMethod};

/// Fewer resamples than this have no tails.
const LEAST: usize = 20;

/// An estimate with its resamples.
pub(crate) struct Spread<'a, T> {
    pub best: &'a T,
    pub resampled: &'a Resampled<T>,
    pub level: f64,
    pub method: IntervalMethod,
}

impl<'a, T> Spread<'a, T> {
    pub fn new(best: &'a T, resampled: &'a Resampled<T>, options: &FitOptions) -> Self {
        Spread { best, resampled, level: options.level, method: options.intervals }
    }

    /// The interval of a quantity; none for fewer than 20 resamples or for an end beyond the range of numbers.
    pub fn interval(&self, value: &dyn Fn(&T) -> f64) -> Option<[f64; 2]> {
        let mut sorted: Vec<f64> = self.resampled.draws.iter().map(value).filter(|v| !v.is_nan()).collect();
        if sorted.len() < LEAST {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - self.level);
        let shares = match self.method {
            IntervalMethod::Percentile => [tail, 1.0 - tail],
            IntervalMethod::Bca => self.moved(&sorted, value, tail),
        };
        let ends = shares.map(|q| at(&sorted, q));
        ends.iter().all(|e| e.is_finite()).then_some(ends)
    }

    /// Shares at which the ends lie: Efron 1987, eq. 2.3, with the acceleration from the jackknife, eq. 6.6.
    fn moved(&self, sorted: &[f64], value: &dyn Fn(&T) -> f64, tail: f64) -> [f64; 2] {
        let best = value(self.best);
        let below = sorted.iter().filter(|v| **v < best).count() as f64
            + 0.5 * sorted.iter().filter(|v| **v == best).count() as f64;
        let n = sorted.len() as f64;
        let bias = quantile((below / n).clamp(0.5 / n, 1.0 - 0.5 / n));
        let left: Vec<f64> = self.resampled.jackknife.iter().map(value).filter(|v| v.is_finite()).collect();
        let mean = left.iter().sum::<f64>() / left.len().max(1) as f64;
        let (squares, cubes) =
            left.iter().fold((0.0, 0.0), |s, v| (s.0 + (mean - v).powi(2), s.1 + (mean - v).powi(3)));
        let acceleration = cubes / (6.0 * squares.powf(1.5));
        let acceleration = if acceleration.is_finite() { acceleration } else { 0.0 };
        [tail, 1.0 - tail].map(|q| {
            let z = bias + quantile(q);
            // The correction has no meaning once the denominator turns; there the bias alone moves the end.
            let stretch = 1.0 - acceleration * z;
            cumulative(if stretch > 0.1 { bias + z / stretch } else { bias + z })
        })
    }
}

/// The value below which a share `q` lies, linear between order statistics.
fn at(sorted: &[f64], q: f64) -> f64 {
    let position = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, share) = (position.floor() as usize, position.fract());
    let (p, q) = (sorted[low], sorted[(low + 1).min(sorted.len() - 1)]);
    // Between an infinite value and another there is no line.
    if share == 0.0 || p == q { p } else { p + share * (q - p) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(draws: Vec<f64>, jackknife: Vec<f64>, best: f64, method: IntervalMethod) -> Option<[f64; 2]> {
        let resampled = Resampled { drawn: draws.len(), draws, jackknife, linear: false };
        Spread { best: &best, resampled: &resampled, level: 0.9, method }.interval(&|v| *v)
    }

    #[test]
    fn intervals_are_percentiles() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let [low, high] = spread(values.clone(), vec![], 50.0, IntervalMethod::Percentile).unwrap();
        assert!((low - 5.0).abs() < 1e-9 && (high - 95.0).abs() < 1e-9);
        assert_eq!(spread(values[..10].to_vec(), vec![], 5.0, IntervalMethod::Percentile), None);
        let beyond = vec![f64::INFINITY; 30];
        assert_eq!(spread(beyond, vec![], 5.0, IntervalMethod::Percentile), None);
    }

    #[test]
    fn bca_is_percentile_without_bias_and_skewness_and_moves_with_them() {
        let values: Vec<f64> = (0..=1000).map(f64::from).collect();
        let even: Vec<f64> = (0..50).map(f64::from).collect();
        let [low, high] = spread(values.clone(), even.clone(), 500.0, IntervalMethod::Bca).unwrap();
        assert!((low - 50.0).abs() < 1e-3 && (high - 950.0).abs() < 1e-3, "{low} {high}");
        // Resamples that lie low on the whole: the interval moves up.
        let [low, high] = spread(values, even, 600.0, IntervalMethod::Bca).unwrap();
        assert!(low > 50.0 && high > 950.0, "{low} {high}");
    }
}
