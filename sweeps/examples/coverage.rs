//! How often 90 % intervals hold the truth: sweeps simulated from a known law are fitted, and every method's intervals of
//! the exponent a, of N* at 100 times the largest compute and of the loss there are counted.
//!
//!     cargo run --release -p isoflop-sweeps --example coverage -- 500

use isoflop_sweeps::fit::{
    Bootstrap, Fit, FitOptions, IntervalMethod, LossParams, Params, RunRecord, RunStatus, fit_runs,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const LAW: LossParams = LossParams { e: 1.69, a: 406.4, b: 410.7, alpha: 0.34, beta: 0.28 };
const QUANTITIES: [&str; 3] = ["a", "N*(100 C)", "loss(100 C)"];

#[derive(Clone, Copy)]
struct Design {
    name: &'static str,
    /// Budgets, from 6e18 to 3e21 FLOPs; none for sizes and computes drawn at random.
    budgets: Option<(usize, usize)>,
    /// Relative deviation of the loss.
    noise: f64,
    /// Share of runs with six times that.
    outliers: f64,
}

const DESIGNS: [Design; 4] = [
    Design { name: "240 scattered, 5 % outliers", budgets: None, noise: 0.005, outliers: 0.05 },
    Design { name: "9 budgets of 8", budgets: Some((9, 8)), noise: 0.003, outliers: 0.0 },
    Design { name: "9 budgets of 8, 5 % outliers", budgets: Some((9, 8)), noise: 0.003, outliers: 0.05 },
    Design { name: "5 budgets of 7", budgets: Some((5, 7)), noise: 0.002, outliers: 0.0 },
];

fn simulate(design: &Design, seed: u64) -> Vec<RunRecord> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || -> f64 { random.random_range(0.0..1.0) };
    let mut points = Vec::new();
    match design.budgets {
        None => {
            for _ in 0..240 {
                let params = 4.4e7 * (1.6e10f64 / 4.4e7).powf(uniform());
                let flops = 6e18 * (3e21f64 / 6e18).powf(uniform());
                points.push((params, (flops / (6.0 * params)).clamp(5e8, 1.5e12), None));
            }
        }
        Some((budgets, sizes)) => {
            for i in 0..budgets {
                let flops = 6e18 * (3e21f64 / 6e18).powf(i as f64 / (budgets - 1) as f64);
                let (best, _) = LAW.optimum(flops, 6.0);
                for k in 0..sizes {
                    let params = best * 0.15 * (6.0f64 / 0.15).powf(k as f64 / (sizes - 1) as f64);
                    points.push((params, flops / (6.0 * params), Some(flops)));
                }
            }
        }
    }
    let run = |(i, (params, tokens, budget)): (usize, (f64, f64, Option<f64>))| {
        let deviation = if uniform() < design.outliers { 6.0 * design.noise } else { design.noise };
        let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        RunRecord {
            id: format!("r{i}"),
            size: String::new(),
            status: RunStatus::Finished,
            params,
            params_non_embedding: None,
            tokens,
            flops: 6.0 * params * tokens,
            flops_convention: "6nd".into(),
            budget,
            seed: None,
            train_loss: None,
            validation_loss: Some(LAW.loss(params, tokens) * (deviation * normal).exp()),
            reason: String::new(),
        }
    };
    points.into_iter().enumerate().map(run).collect()
}

fn quantity(law: &Params, which: usize, flops: f64) -> f64 {
    let Params::Loss(law) = law else { return f64::NAN };
    let (params, tokens) = law.optimum(flops, 6.0);
    [law.exponents().a, params, law.loss(params, tokens)][which]
}

/// For each quantity whether the interval holds the truth, and how wide it is beside the truth.
fn judge(fit: &Fit, method: IntervalMethod, flops: f64) -> [(bool, f64); 3] {
    let mut fit = fit.clone();
    fit.bootstrap = fit.bootstrap.map(|b| Bootstrap { method, ..b });
    std::array::from_fn(|which| {
        let truth = quantity(&Params::Loss(LAW), which, flops);
        match fit.interval_of(&|law| quantity(law, which, flops)) {
            Some([low, high]) => (low <= truth && truth <= high, (high - low) / truth),
            None => (false, f64::INFINITY),
        }
    })
}

fn main() {
    let sweeps: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(500);
    println!("| design | resampled | method | {} | median width of N*'s, over N* |", QUANTITIES.join(" | "));
    println!("|---|---|---|---|---|---|---|");
    for design in DESIGNS {
        for stratified in [false, true] {
            if stratified && design.budgets.is_none() {
                continue;
            }
            let found: Vec<[[(bool, f64); 3]; METHODS.len()]> = (0..sweeps)
                .into_par_iter()
                .filter_map(|seed| {
                    let runs = simulate(&design, seed);
                    let options = FitOptions {
                        approaches: vec![3],
                        bootstrap: 400,
                        intervals: IntervalMethod::Bca,
                        stratified,
                        seed,
                        ..FitOptions::default()
                    };
                    let top = runs.iter().map(|r| r.flops).fold(0.0, f64::max);
                    let fit = fit_runs(&runs, &[], &options).ok()?.fits.remove(0);
                    Some(METHODS.map(|(_, method)| judge(&fit, method, 100.0 * top)))
                })
                .collect();
            for (m, (name, _)) in METHODS.iter().enumerate() {
                let share = |which: usize| {
                    let hits = found.iter().filter(|f| f[m][which].0).count();
                    format!("{:.1} %", 100.0 * hits as f64 / found.len() as f64)
                };
                let mut widths: Vec<f64> = found.iter().map(|f| f[m][1].1).collect();
                widths.sort_by(f64::total_cmp);
                println!(
                    "| {} | {} | {name} | {} | {} | {} | {:.2} |",
                    design.name,
                    if stratified { "by budget" } else { "all" },
                    share(0),
                    share(1),
                    share(2),
                    widths[widths.len() / 2]
                );
            }
        }
    }
}

const METHODS: [(&str, IntervalMethod); 2] =
    [("percentile", IntervalMethod::Percentile), ("BCa", IntervalMethod::Bca)];
