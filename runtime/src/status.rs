//! `status.json` of a run directory: where a run stands, replaced as a whole each time.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Planned, never started: also what a run directory without a status file is.
    Pending,
    Running,
    /// Stopped on request or by a signal after saving; `isoflop train` continues it.
    Interrupted,
    Finished,
    /// The loss rose above the limit or was not finite, at `step`.
    Diverged,
    Failed,
    /// Its plan holds where it is to run; nothing was trained.
    Checked,
}

/// Resident memory of the process that trains, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// The peak that follows from the programs and the number of threads.
    pub planned_bytes: u64,
    /// Of these, pages of mapped files: code, a constant of the program.
    pub planned_file_bytes: u64,
    /// The peak until now; none where the system does not say.
    pub peak_bytes: Option<u64>,
    /// Pages of mapped files, which is code: a part of the peak that other processes share.
    pub file_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    pub state: State,
    /// Optimiser steps done.
    pub step: u64,
    pub steps: u64,
    pub tokens: u64,
    /// Nats per token; the newest known.
    pub train_loss: Option<f64>,
    pub validation_loss: Option<f64>,
    /// Why, for `diverged` and `failed`: one line.
    pub reason: Option<String>,
    /// Tokens per second of the newest stretch; 0 before the first.
    pub tokens_per_s: f64,
    /// Of the newest process that trained it.
    #[serde(default)]
    pub memory: Option<MemoryStatus>,
    /// The longest that writing a checkpoint took, by any process that trained it; none before the first.
    #[serde(default)]
    pub save_seconds: Option<f64>,
}

impl RunStatus {
    /// Of a run that was never started.
    pub fn pending() -> RunStatus {
        RunStatus {
            state: State::Pending,
            step: 0,
            steps: 0,
            tokens: 0,
            train_loss: None,
            validation_loss: None,
            reason: None,
            tokens_per_s: 0.0,
            memory: None,
            save_seconds: None,
        }
    }
}
