//! Studies drawn from a known law, for the tests of fits and reports.
#![allow(dead_code)] // Each test binary uses its own part.

pub mod page;

use isoflop_sweeps::fit::{Curve, CurvePoint, LossParams, RunRecord, RunStatus, Warning, WarningCode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A law whose optima lie near the sizes below.
pub const LAW: LossParams = LossParams { e: 1.7, a: 400.0, b: 410.0, alpha: 0.34, beta: 0.28 };

/// Standard normal numbers, the same for the same seed.
pub struct Noise(ChaCha8Rng);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Noise(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn next(&mut self) -> f64 {
        let (u, v): (f64, f64) = (self.0.random_range(1e-12..1.0), self.0.random_range(0.0..1.0));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// A finished run with these losses.
pub fn run(id: String, params: f64, tokens: f64, budget: Option<f64>, loss: f64) -> RunRecord {
    RunRecord {
        size: format!("{:.0}M", params / 1e6),
        status: RunStatus::Finished,
        params,
        params_non_embedding: Some(0.9 * params),
        tokens,
        flops: 6.0 * params * tokens,
        flops_convention: "6nd".into(),
        budget,
        seed: Some(0),
        train_loss: Some(0.99 * loss),
        validation_loss: Some(loss),
        reason: String::new(),
        id,
    }
}

/// Sizes at these multiples of each budget's optimum, log losses with normal noise of this standard deviation.
pub fn isoflop(
    law: &LossParams,
    budgets: &[f64],
    multiples: &[f64],
    noise: f64,
    seed: u64,
) -> Vec<RunRecord> {
    let mut random = Noise::new(seed);
    let mut runs = Vec::new();
    for &budget in budgets {
        let (best, _) = law.optimum(budget, 6.0);
        for multiple in multiples {
            let params = (best * multiple).round();
            let tokens = budget / (6.0 * params);
            let loss = law.loss(params, tokens) * (noise * random.next()).exp();
            runs.push(run(format!("c{budget:.0e}-x{multiple}"), params, tokens, Some(budget), loss));
        }
    }
    runs
}

pub const BUDGETS: [f64; 5] = [1e18, 3e18, 1e19, 3e19, 1e20];
pub const MULTIPLES: [f64; 7] = [0.2, 0.35, 0.6, 1.0, 1.7, 2.9, 5.0];

/// A study that raises no warning.
pub fn sound() -> Vec<RunRecord> {
    isoflop(&LAW, &BUDGETS, &MULTIPLES, 0.0015, 11)
}

/// Training curves that follow the law at every token, as with a constant learning rate; `decay` lowers the last lr.
pub fn curves(law: &LossParams, runs: &[RunRecord], decay: bool, noise: f64) -> Vec<Curve> {
    let mut random = Noise::new(5);
    let steps = 120;
    runs.iter()
        .map(|run| {
            let points = (1..=steps)
                .map(|step| {
                    let share = 10f64.powf(-2.0 * (1.0 - step as f64 / steps as f64));
                    let tokens = run.tokens * share;
                    let loss = law.loss(run.params, tokens);
                    CurvePoint {
                        step: step as u64 * 10,
                        tokens,
                        flops: run.flops * share,
                        train_loss: Some(loss * (noise * random.next()).exp()),
                        validation_loss: (step % 5 == 0).then_some(loss),
                        lr: Some(if decay { 1e-3 * (1.1 - share) } else { 1e-3 }),
                        grad_norm: Some(1.0),
                    }
                })
                .collect();
            Curve { run: run.id.clone(), points }
        })
        .collect()
}

pub fn count(warnings: &[Warning], code: WarningCode) -> usize {
    warnings.iter().filter(|w| w.code == code).count()
}
