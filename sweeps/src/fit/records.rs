//! A training run with its final losses, and a run's training curve: what the approaches are fitted to.

use serde::{Deserialize, Serialize};

/// How a run ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Reached its last step.
    Finished,
    /// Its loss stopped being a number or grew without end.
    Diverged,
    /// Ended with an error.
    Failed,
    /// Stopped before its last step; can be continued.
    Interrupted,
    /// Not started.
    Pending,
}

impl RunStatus {
    /// The word used in runs.csv.
    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Finished => "finished",
            RunStatus::Diverged => "diverged",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
            RunStatus::Pending => "pending",
        }
    }

    /// The status a word of runs.csv stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        use RunStatus::*;
        [Finished, Diverged, Failed, Interrupted, Pending].into_iter().find(|s| s.name() == name)
    }
}

/// One row of runs.csv: a training run and its final losses.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Unique in its study.
    pub id: String,
    /// Name of the model size, such as `44M`; empty where there is none.
    pub size: String,
    pub status: RunStatus,
    /// All parameters N.
    pub params: f64,
    /// Parameters without embeddings, where counted.
    pub params_non_embedding: Option<f64>,
    /// Training tokens D.
    pub tokens: f64,
    /// Training compute C in FLOPs, counted by `flops_convention`.
    pub flops: f64,
    /// `6nd`, `kaplan`, `chinchilla`, `chinchilla-table` or `exact`.
    pub flops_convention: String,
    /// The isoFLOP budget in FLOPs that the run belongs to; none for grids.
    pub budget: Option<f64>,
    pub seed: Option<u64>,
    /// Final training loss in nats per token.
    pub train_loss: Option<f64>,
    /// Final validation loss in nats per token.
    pub validation_loss: Option<f64>,
    /// Why the run is not finished; empty when it is.
    pub reason: String,
}

/// One logged step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePoint {
    pub step: u64,
    /// Tokens seen so far.
    pub tokens: f64,
    /// FLOPs spent so far.
    pub flops: f64,
    /// Nats per token; none where it was not a number.
    pub train_loss: Option<f64>,
    /// Nats per token; none where it was not measured.
    pub validation_loss: Option<f64>,
    pub lr: Option<f64>,
    pub grad_norm: Option<f64>,
}

/// The metrics.csv of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The run's id in runs.csv.
    pub run: String,
    /// In the order of steps.
    pub points: Vec<CurvePoint>,
}
