//! The resolved configuration of one run: everything `isoflop train <run dir>` needs, written by the planner as
//! `<run dir>/config.toml`. Nothing in it is a rule any more; every number is final.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `config.toml` of a run directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Unique in its study; also the run directory's name.
    pub id: String,
    /// Folder of the compiled model, relative to the run directory or absolute.
    pub artifact: PathBuf,
    /// Seeds the initial weights and the order of the data.
    pub seed: u64,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Sequences of one step.
    pub batch: usize,
    /// Tokens of one sequence.
    pub seq_len: usize,
    pub vocab_size: usize,
    pub schedule: Schedule,
    /// As in the optimiser the program was compiled with: needed for the bias corrections 1 - beta^t.
    pub betas: [f64; 2],
    pub data: DataConfig,
    /// Steps between two validations; the last step is always followed by one.
    pub validate_every: u64,
    /// Steps between two checkpoints; the last step is always followed by one.
    pub checkpoint_every: u64,
    /// Whole checkpoints kept, newest first; at least 2 so that a damaged one has a predecessor.
    pub keep_checkpoints: usize,
    /// FLOPs of one training token, by the convention named beside it; metrics multiply it by tokens.
    pub flops_per_token: f64,
    pub flops_convention: String,
    /// Peak FLOP/s of one thread, for the utilisation in timings.csv; without it that column is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_flops: Option<f64>,
    /// Threads of the executor. Results do not depend on it.
    pub threads: usize,
    /// A run whose train loss rises above this, or is not finite, is marked diverged.
    pub diverged_above: f64,
    /// Also write TensorBoard event files.
    #[serde(default)]
    pub tensorboard: bool,
}

/// Learning rate over the steps: linear warm-up from 0 to `lr`, then decay to `final_fraction * lr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The peak.
    pub lr: f64,
    pub warmup_steps: u64,
    pub decay: Decay,
    pub final_fraction: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    Cosine,
    Linear,
    Constant,
}

/// Token files of a run. Paths may be relative to the run directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Shards of training tokens, read in this order as one sequence.
    pub train: Vec<PathBuf>,
    pub validation: Vec<PathBuf>,
    /// Sequences of one validation; the same ones every time, rounded up to whole batches.
    pub validation_sequences: usize,
    /// Names the prepared text, so that a study cannot go on with another; absent for token files named one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl Schedule {
    /// Learning rate of optimiser step `step` (0-based) of `steps`.
    pub fn lr_at(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let shape = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Decay::Linear => 1.0 - done,
            Decay::Constant => return self.lr,
        };
        self.lr * (self.final_fraction + (1.0 - self.final_fraction) * shape)
    }
}
