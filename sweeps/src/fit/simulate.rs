//! Data drawn from a law that is known, to test a design before paying for it: what a fit would find, and how it spreads.

use super::options::FitOptions;
use super::records::{RunRecord, RunStatus};
use super::result::{Fit, LossParams};
use super::{FitError, fit_runs};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;

/// FLOPs of a parameter and token in designs that are made here: the convention 6nd.
const SIX: f64 = 6.0;

/// A run that a design asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub id: String,
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    /// Convention of `flops`.
    pub convention: String,
    /// The isoFLOP budget in FLOPs; none in grids.
    pub budget: Option<f64>,
    pub seed: u64,
}

/// Why a simulation cannot be made.
#[derive(Debug, Error)]
pub enum SimulationError {
    #[error("--{option}: found {found}, expected {allowed}")]
    BadOption { option: &'static str, found: String, allowed: &'static str },
    #[error("--law: found `{found}`, expected E=..,A=..,B=..,alpha=..,beta=.. or one of hoffmann, besiroglu")]
    BadLaw { found: String },
}

/// Published laws: Hoffmann et al. 2022 and Besiroglu et al. 2024, who fitted the former's data again.
const PUBLISHED: [(&str, LossParams); 2] = [
    ("hoffmann", LossParams { e: 1.69, a: 406.4, b: 410.7, alpha: 0.34, beta: 0.28 }),
    ("besiroglu", LossParams { e: 1.8172, a: 482.01, b: 2085.43, alpha: 0.3478, beta: 0.3658 }),
];

/// Reads `E=1.69,A=406.4,B=410.7,alpha=.34,beta=.28`, or the name of a published law.
///
/// # Errors
/// An unknown name, a parameter that is missing, there twice or not above 0 (E may be 0).
pub fn law(text: &str) -> Result<LossParams, SimulationError> {
    let bad = || SimulationError::BadLaw { found: text.to_string() };
    if let Some((_, law)) = PUBLISHED.iter().find(|(name, _)| *name == text) {
        return Ok(*law);
    }
    const NAMES: [&str; 5] = ["E", "A", "B", "alpha", "beta"];
    let mut values = [None; 5];
    for piece in text.split(',') {
        let (name, value) = piece.split_once('=').ok_or_else(bad)?;
        let place = NAMES.iter().position(|n| *n == name.trim()).ok_or_else(bad)?;
        let value: f64 = value.trim().parse().map_err(|_| bad())?;
        let allowed = value.is_finite() && (value > 0.0 || (place == 0 && value == 0.0));
        if !allowed || values[place].replace(value).is_some() {
            return Err(bad());
        }
    }
    match values {
        [Some(e), Some(a), Some(b), Some(alpha), Some(beta)] => Ok(LossParams { e, a, b, alpha, beta }),
        _ => Err(bad()),
    }
}

/// Sizes of an isoFLOP budget: a number of them around the law's optimum, or parameter counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Sizes {
    /// So many, each `spacing` times the one before, the middle one at the optimum.
    Around {
        count: usize,
        spacing: f64,
    },
    Given(Vec<f64>),
}

/// The runs of isoFLOP budgets (FLOPs by 6nd), each repeated with `seeds` seeds.
pub fn isoflop(law: &LossParams, budgets: &[f64], sizes: &Sizes, seeds: u64) -> Vec<Point> {
    let mut points = Vec::new();
    for &budget in budgets {
        let sizes = match sizes {
            Sizes::Given(sizes) => sizes.clone(),
            Sizes::Around { count, spacing } => {
                let (best, _) = law.optimum(budget, SIX);
                let middle = (*count as f64 - 1.0) / 2.0;
                (0..*count).map(|i| (best * spacing.powf(i as f64 - middle)).round().max(1.0)).collect()
            }
        };
        for params in sizes {
            let tokens = budget / (SIX * params);
            points.extend((0..seeds).map(|seed| point(params, tokens, Some(budget), seed)));
        }
    }
    points
}

/// Every size with every token count.
pub fn grid(sizes: &[f64], tokens: &[f64], seeds: u64) -> Vec<Point> {
    let pairs = sizes.iter().flat_map(|n| tokens.iter().map(|d| (*n, *d)));
    pairs.flat_map(|(n, d)| (0..seeds).map(move |seed| point(n, d, None, seed))).collect()
}

fn point(params: f64, tokens: f64, budget: Option<f64>, seed: u64) -> Point {
    let of = budget.map(|b| format!("c{b:e}-")).unwrap_or_default();
    let id = match budget {
        Some(_) => format!("{of}n{params:.4e}-s{seed}"),
        None => format!("n{params:.4e}-d{tokens:.4e}-s{seed}"),
    };
    let flops = SIX * params * tokens;
    Point { id, params, tokens, flops, convention: "6nd".into(), budget, seed }
}

/// How far a run is from the law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// Standard deviation of the log loss at `flops`.
    pub deviation: f64,
    /// Exponent of the variance in compute; 0 where runs of all sizes scatter alike.
    pub growth: f64,
    /// FLOPs.
    pub flops: f64,
}

impl Noise {
    /// The variance grows or shrinks by so much at most.
    const MOST: f64 = 10.0;

    /// The same for all runs.
    pub fn constant(deviation: f64) -> Noise {
        Noise { deviation, growth: 0.0, flops: 1.0 }
    }

    /// The deviation of a run of so many FLOPs.
    pub fn at(&self, flops: f64) -> f64 {
        let factor = (flops / self.flops).powf(self.growth).clamp(1.0 / Noise::MOST, Noise::MOST);
        self.deviation * factor.sqrt()
    }
}

/// A law, a design, and how measured losses scatter about the law.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    pub law: LossParams,
    pub points: Vec<Point>,
    pub noise: Noise,
    /// Share of runs that are outliers.
    pub outliers: f64,
    /// Their standard deviation over that of the others.
    pub outlier_factor: f64,
    pub seed: u64,
}

impl Simulation {
    /// # Errors
    /// An empty design, noise below 0, or a share of outliers outside 0 to 1.
    pub fn check(&self) -> Result<(), SimulationError> {
        let bad = |option, found: f64, allowed| {
            Err(SimulationError::BadOption { option, found: found.to_string(), allowed })
        };
        if self.points.is_empty() {
            return bad("sizes", 0.0, "a design with at least one run");
        }
        if !(0.0..=1.0).contains(&self.noise.deviation) {
            return bad(
                "noise",
                self.noise.deviation,
                "a standard deviation of the log loss from 0 to 1, such as 0.005",
            );
        }
        if !(0.0..=1.0).contains(&self.outliers) {
            return bad("outliers", self.outliers, "a share of the runs from 0 to 1");
        }
        if !(self.outlier_factor.is_finite() && self.outlier_factor >= 1.0) {
            return bad("outlier-factor", self.outlier_factor, "a factor from 1");
        }
        Ok(())
    }

    /// The finished runs of draw `k`. It depends on the seed and `k` only.
    pub fn draw(&self, k: u64) -> Vec<RunRecord> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(k);
        let one = |point: &Point| {
            let outlier = rng.random_range(0.0..1.0) < self.outliers;
            let scale = self.noise.at(point.flops) * if outlier { self.outlier_factor } else { 1.0 };
            let loss = self.law.loss(point.params, point.tokens) * (scale * normal(&mut rng)).exp();
            RunRecord {
                id: point.id.clone(),
                size: String::new(),
                status: RunStatus::Finished,
                params: point.params,
                params_non_embedding: None,
                tokens: point.tokens,
                flops: point.flops,
                flops_convention: point.convention.clone(),
                budget: point.budget,
                seed: Some(point.seed),
                train_loss: None,
                validation_loss: Some(loss),
                reason: String::new(),
            }
        };
        self.points.iter().map(one).collect()
    }

    /// Fits `repeats` draws without intervals and says how the estimates spread about the truth.
    ///
    /// # Errors
    /// When no draw can be fitted: the first draw's reason.
    pub fn repeat(&self, repeats: u64, options: &FitOptions) -> Result<Vec<Spread>, FitError> {
        let options = FitOptions { bootstrap: 0, ..options.clone() };
        let fits: Vec<Result<Vec<Fit>, FitError>> = (0..repeats)
            .into_par_iter()
            .map(|k| fit_runs(&self.draw(k), &[], &options).map(|report| report.fits))
            .collect();
        let mut spreads = Vec::new();
        for approach in [2, 3] {
            let of = |fits: &Vec<Fit>| fits.iter().find(|f| f.approach == approach).cloned();
            let found: Vec<Fit> = fits.iter().flatten().filter_map(of).collect();
            if !found.is_empty() {
                spreads.push(self.spread(approach, repeats, &found, &options.targets));
            }
        }
        match fits.into_iter().next() {
            Some(Err(error)) if spreads.is_empty() => Err(error),
            _ => Ok(spreads),
        }
    }

    fn spread(&self, approach: u8, repeats: u64, fits: &[Fit], targets: &[f64]) -> Spread {
        let k = self.points.iter().map(|p| p.flops / (p.params * p.tokens)).sum::<f64>()
            / self.points.len() as f64;
        let exponents = Summary::of(fits.iter().map(|f| f.exponents.a), self.law.exponents().a);
        let at = |flops: f64| {
            let found = fits.iter().filter_map(|f| Some(f.optimum_at(flops, k)?.0));
            OptimumSpread { flops, params: Summary::of(found, self.law.optimum(flops, k).0) }
        };
        let optima = targets.iter().map(|c| at(*c)).collect();
        Spread { approach, drawn: repeats, fitted: fits.len(), a: exponents, optima }
    }
}

/// How an approach's estimates spread over draws.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    pub approach: u8,
    /// Draws made, and those that could be fitted.
    pub drawn: u64,
    pub fitted: usize,
    /// Exponent of N* in compute.
    pub a: Summary,
    /// N* at the targets.
    pub optima: Vec<OptimumSpread>,
}

/// The spread of N* at a compute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimumSpread {
    /// FLOPs.
    pub flops: f64,
    pub params: Summary,
}

/// What was recovered beside what was true.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub truth: f64,
    pub median: f64,
    /// Standard deviation about the mean.
    pub deviation: f64,
    /// 5th and 95th percentile.
    pub range: [f64; 2],
}

impl Summary {
    fn of(values: impl Iterator<Item = f64>, truth: f64) -> Summary {
        let mut sorted: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len().max(1) as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let deviation = (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
        let at = |q: f64| {
            let place = (q * (sorted.len().saturating_sub(1)) as f64).round() as usize;
            sorted.get(place).copied().unwrap_or(truth)
        };
        Summary { truth, median: at(0.5), deviation, range: [at(0.05), at(0.95)] }
    }
}

/// A standard normal number, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulation(noise: f64) -> Simulation {
        let law = law("hoffmann").unwrap();
        let points = isoflop(&law, &[1e18, 1e19, 1e20], &Sizes::Around { count: 7, spacing: 2.0 }, 1);
        let noise = Noise::constant(noise);
        Simulation { law, points, noise, outliers: 0.0, outlier_factor: 6.0, seed: 3 }
    }

    #[test]
    fn laws_are_read_or_refused() {
        assert_eq!(law("E=1.69,A=406.4, B=410.7,alpha=.34,beta=.28").unwrap(), PUBLISHED[0].1);
        for text in
            ["", "chinchilla", "E=1,A=2", "E=1,A=2,B=3,alpha=.3,beta=0", "E=1,E=1,A=2,B=3,alpha=.3,beta=.3"]
        {
            assert!(law(text).is_err(), "{text}");
        }
    }

    #[test]
    fn draws_follow_the_law_and_differ() {
        let exact = simulation(0.0);
        let runs = exact.draw(0);
        assert_eq!(runs.len(), 21);
        assert!(runs.iter().all(|r| r.validation_loss == Some(exact.law.loss(r.params, r.tokens))));
        assert!(runs.iter().all(|r| (r.flops / r.budget.unwrap() - 1.0).abs() < 1e-12));
        let noisy = simulation(0.01);
        assert_eq!(noisy.draw(4), noisy.draw(4));
        assert_ne!(noisy.draw(4), noisy.draw(5));
        let squares: Vec<f64> = (0..200)
            .flat_map(|k| noisy.draw(k))
            .map(|r| (r.validation_loss.unwrap() / noisy.law.loss(r.params, r.tokens)).ln().powi(2))
            .collect();
        let deviation = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
        assert!((deviation / 0.01 - 1.0).abs() < 0.05, "{deviation}");
    }

    #[test]
    fn noise_grows_with_compute_within_bounds() {
        let noise = Noise { deviation: 0.01, growth: -0.5, flops: 1e20 };
        assert_eq!(noise.at(1e20), 0.01);
        assert!((noise.at(1e21) / (0.01 * 10f64.powf(-0.25)) - 1.0).abs() < 1e-12);
        assert!((noise.at(1e30) / (0.01 * 0.1f64.sqrt()) - 1.0).abs() < 1e-12);
        assert_eq!(Noise::constant(0.02).at(1e9), 0.02);
    }

    #[test]
    fn the_spread_of_an_exact_design_is_none_and_noise_widens_it() {
        let options = FitOptions { targets: vec![1e21], ..Default::default() };
        let exact = simulation(0.0).repeat(3, &options).unwrap();
        let third = exact.iter().find(|s| s.approach == 3).unwrap();
        assert!((third.a.median - third.a.truth).abs() < 1e-4 && third.a.deviation < 1e-6, "{third:?}");
        let noisy = simulation(0.003).repeat(40, &options).unwrap();
        let third = noisy.iter().find(|s| s.approach == 3).unwrap();
        assert_eq!((third.drawn, third.fitted), (40, 40));
        assert!(
            third.a.deviation > 1e-3 && third.a.range[0] < third.a.truth && third.a.truth < third.a.range[1]
        );
        let params = third.optima[0].params;
        assert!(params.range[0] < params.truth && params.truth < params.range[1], "{params:?}");
    }
}
