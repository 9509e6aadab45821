//! From a sweep to its runs: sizes, tokens, steps, batch and learning rate of each, every number final.

use crate::device::Device;
use crate::file::{BatchSpec, LrSpec, Points, SizeChoice, Sweep, Warmup};
use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::count::{Convention, Mfu, flops_per_token, parameters};
use isoflop_runtime::config::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// All runs of a sweep. Written to `plan.json`; two plans of one sweep file are equal byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub sweep: String,
    pub flops_convention: Convention,
    /// Name of the device description that `seconds` are for; none before a prediction.
    pub device: Option<String>,
    /// Its values, so that a plan says by which numbers it was predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_description: Option<Device>,
    /// The cluster that the runs have layouts for, each in its directory's `layout.toml`; none for runs on CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    pub runs: Vec<PlannedRun>,
    /// What a person should know before paying for this plan.
    pub warnings: Vec<String>,
}

/// One training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// Stable: made from the budget or tokens, the size's name and the seed.
    pub id: String,
    pub size: String,
    pub seed: u64,
    /// The isoFLOP budget; none in a grid or list.
    pub budget: Option<f64>,
    pub model: ModelConfig,
    /// Every trained number.
    pub params: u64,
    pub params_non_embedding: u64,
    /// Whole steps of whole batches.
    pub tokens: u64,
    /// Of the whole run, counted by `flops_convention`.
    pub flops: f64,
    pub flops_per_token: f64,
    pub flops_convention: Convention,
    pub steps: u64,
    /// Sequences of one step.
    pub batch: usize,
    pub batch_tokens: u64,
    pub schedule: Schedule,
    pub optimizer: AdamW,
    /// Most bytes that the program of a step may take; none is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<u64>,
    /// What one device holds to train this run in one piece: the compiled memory plan's figure.
    pub memory_bytes: Option<u64>,
    /// The most resident memory that `isoflop train` comes to with one thread: `memory_bytes`, scratch and the program.
    /// Only for devices whose memory a process has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// What each further thread adds to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes_per_further_thread: Option<u64>,
    /// Predicted, on `Plan::device`.
    pub seconds: Option<f64>,
    /// Predicted model FLOPs utilisation of that device.
    pub mfu: Option<f64>,
    pub mfu_convention: Option<Convention>,
    /// Of that device, FLOP/s.
    pub peak_flops: Option<f64>,
}

impl PlannedRun {
    /// What the compiler needs to know of this run's step. Runs with equal model and step share one artifact.
    pub fn step(&self) -> StepConfig {
        StepConfig {
            optimizer: self.optimizer.clone(),
            memory_budget: self.memory_budget,
            ..StepConfig::new(self.batch)
        }
    }

    /// Records a predicted time of the whole run and the utilisation it means.
    pub fn set_seconds(&mut self, seconds: f64, peak_flops: f64) {
        let mfu = Mfu::new(
            &self.model,
            Convention::ExactCausal,
            self.batch,
            self.tokens as f64 / seconds,
            peak_flops,
        );
        self.seconds = Some(seconds);
        self.mfu = Some(mfu.fraction);
        self.mfu_convention = Some(mfu.convention);
        self.peak_flops = Some(peak_flops);
    }
}

/// Plans every run of a sweep, in the order of the file: budgets, token counts or listed runs, then sizes, then seeds.
///
/// # Errors
/// When no run is left.
pub fn plan(sweep: &Sweep) -> Result<Plan, PlanError> {
    let mut plan = Plan {
        sweep: sweep.name.clone(),
        flops_convention: sweep.plan.convention,
        device: None,
        device_description: None,
        cluster: None,
        runs: Vec::new(),
        warnings: Vec::new(),
    };
    let mut short = Vec::new();
    for point in points(sweep, &mut plan.warnings) {
        for seed in point.seeds {
            let run = planned(sweep, &point, *seed);
            if run.steps < sweep.plan.min_steps.max(1) {
                short.push(format!("{} ({} steps)", run.id, run.steps));
            } else {
                plan.runs.push(run);
            }
        }
    }
    if !short.is_empty() {
        plan.warnings.push(format!(
            "left out for having fewer than min_steps = {} steps: {}",
            sweep.plan.min_steps,
            short.join(", ")
        ));
    }
    if plan.runs.is_empty() {
        return Err(PlanError::Empty { warnings: plan.warnings.join("; ") });
    }
    warn_about_fits(sweep, &mut plan);
    Ok(plan)
}

/// No plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "the plan has no runs: {warnings}; raise the budgets, choose smaller sizes, or lower [plan] min_steps"
    )]
    Empty { warnings: String },
}

/// One size with one budget or token count, once for each seed.
struct Point<'a> {
    size: usize,
    budget: Option<f64>,
    tokens: Option<f64>,
    seeds: &'a [u64],
}

fn points<'a>(sweep: &'a Sweep, warnings: &mut Vec<String>) -> Vec<Point<'a>> {
    let seeds = &sweep.seeds;
    match &sweep.plan.points {
        Points::List { runs } => runs
            .iter()
            .map(|run| Point { size: run.size, budget: None, tokens: Some(run.tokens), seeds: &run.seeds })
            .collect(),
        Points::Grid { tokens } => (0..sweep.sizes.len())
            .flat_map(|size| {
                tokens.iter().map(move |&t| Point { size, budget: None, tokens: Some(t), seeds })
            })
            .collect(),
        Points::Isoflop { flops, sizes } => {
            let mut points = Vec::new();
            for &budget in flops {
                let chosen = match sizes {
                    SizeChoice::All => (0..sweep.sizes.len()).collect(),
                    SizeChoice::Around { count, spacing, tokens_per_param } => {
                        if *count > sweep.sizes.len() {
                            let note = format!(
                                "{count} sizes are asked for, but the family has {}; all are used",
                                sweep.sizes.len()
                            );
                            if !warnings.contains(&note) {
                                warnings.push(note);
                            }
                        }
                        around(sweep, budget, *count, *spacing, *tokens_per_param)
                    }
                };
                points.extend(chosen.into_iter().map(|size| Point {
                    size,
                    budget: Some(budget),
                    tokens: None,
                    seeds,
                }));
            }
            points
        }
    }
}

/// The sizes nearest to `count` targets, `spacing` apart, around the size n with `budget = flops_per_token(n) *
/// tokens_per_param * n`. Where two targets have the same nearest size, unused neighbours fill in.
fn around(sweep: &Sweep, budget: f64, count: usize, spacing: f64, tokens_per_param: f64) -> Vec<usize> {
    let log_params: Vec<f64> =
        sweep.sizes.iter().map(|s| (parameters(&s.model).total() as f64).ln()).collect();
    // Near the optimum 6*N is close enough to any convention's FLOPs of a token to place a grid.
    let centre = (budget / (6.0 * tokens_per_param)).sqrt().ln();
    let middle = (count as f64 - 1.0) / 2.0;
    let mut chosen: Vec<usize> = Vec::new();
    for k in 0..count {
        let target = centre + (k as f64 - middle) * spacing.ln();
        let distance = |i: &usize| (log_params[*i] - target).abs();
        let free = (0..log_params.len()).filter(|i| !chosen.contains(i));
        if let Some(i) = free.min_by(|a, b| distance(a).total_cmp(&distance(b))) {
            chosen.push(i);
        }
    }
    chosen.sort_by(|a, b| log_params[*a].total_cmp(&log_params[*b]));
    chosen
}

fn planned(sweep: &Sweep, point: &Point<'_>, seed: u64) -> PlannedRun {
    let size = &sweep.sizes[point.size];
    let model = &size.model;
    let convention = sweep.plan.convention;
    let wanted = |batch: usize| match (point.budget, point.tokens) {
        (Some(budget), _) => budget / flops_per_token(model, convention, batch),
        (None, tokens) => tokens.unwrap_or_default(),
    };
    // The batch depends on the tokens and, in the exact conventions, the tokens slightly on the batch.
    let first = batch_sequences(sweep, point.size, wanted(1));
    let batch = batch_sequences(sweep, point.size, wanted(first));
    let batch_tokens = (batch * model.seq_len) as u64;
    let steps = (wanted(batch) / batch_tokens as f64).round() as u64;
    let tokens = steps.saturating_mul(batch_tokens);
    let count = parameters(model);
    let per_token = flops_per_token(model, convention, batch);
    let first_part = match (point.budget, point.tokens) {
        (Some(budget), _) => format!("c{budget:e}"),
        (None, tokens) => format!("d{:e}", tokens.unwrap_or_default()),
    };
    let warmup_steps = match sweep.train.warmup {
        Warmup::Share(share) => (share * steps as f64).ceil() as u64,
        Warmup::Steps(n) => n,
    };
    PlannedRun {
        id: format!("{first_part}-n{}-s{seed}", size.name),
        size: size.name.clone(),
        seed,
        budget: point.budget,
        model: model.clone(),
        params: count.total(),
        params_non_embedding: count.non_embedding(),
        tokens,
        flops: per_token * tokens as f64,
        flops_per_token: per_token,
        flops_convention: convention,
        steps,
        batch,
        batch_tokens,
        schedule: Schedule {
            lr: lr(sweep, point.size, tokens as f64),
            warmup_steps: warmup_steps.min(steps),
            decay: sweep.train.decay,
            final_fraction: sweep.train.final_fraction,
        },
        optimizer: sweep.train.optimizer.clone(),
        memory_budget: sweep.train.memory_budget,
        memory_bytes: None,
        peak_rss_bytes: None,
        peak_rss_bytes_per_further_thread: None,
        seconds: None,
        mfu: None,
        mfu_convention: None,
        peak_flops: None,
    }
}

/// Sequences of one step for a run of about `tokens` tokens; at least one.
fn batch_sequences(sweep: &Sweep, index: usize, tokens: f64) -> usize {
    let seq_len = sweep.sizes[index].model.seq_len as f64;
    let sequences = match &sweep.train.batch {
        BatchSpec::Fixed(tokens) => (*tokens as f64 / seq_len).round(),
        BatchSpec::PerSize(tokens) => (tokens[index] as f64 / seq_len).round(),
        BatchSpec::StepLaw { min, max } => {
            let law = 0.58 * tokens.powf(0.571);
            let bounded = law.max(*min as f64).min(*max as f64);
            let power = (bounded / seq_len).max(1.0).log2().round().exp2();
            // Rounding must not carry the batch over its limit.
            if power * seq_len > *max as f64 { power / 2.0 } else { power }
        }
    };
    sequences.max(1.0) as usize
}

fn lr(sweep: &Sweep, index: usize, tokens: f64) -> f64 {
    let size = &sweep.sizes[index];
    let rate = match &sweep.train.lr {
        LrSpec::Fixed(lr) => *lr,
        LrSpec::PerSize(rates) => rates[index],
        LrSpec::Width { base } => base / size.model.d_model as f64,
        LrSpec::StepLaw => 1.79 * (parameters(&size.model).total() as f64).powf(-0.713) * tokens.powf(0.307),
    };
    rate * sweep.train.lr_scale
}

/// Practice of the published fits: at least three budgets and five sizes each.
fn warn_about_fits(sweep: &Sweep, plan: &mut Plan) {
    let Points::Isoflop { flops, .. } = &sweep.plan.points else { return };
    if flops.len() < 3 {
        plan.warnings.push(format!("{} budgets: a power law of the optimum needs at least 3", flops.len()));
    }
    for budget in flops {
        let sizes: HashSet<&str> =
            plan.runs.iter().filter(|r| r.budget == Some(*budget)).map(|r| r.size.as_str()).collect();
        if sizes.len() < 5 {
            plan.warnings.push(format!(
                "budget {budget:e} has {} sizes: a minimum is well placed with at least 5",
                sizes.len()
            ));
        }
    }
}
