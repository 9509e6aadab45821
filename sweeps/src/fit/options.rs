//! What a fit may be asked to do differently.

use super::error::FitError;
use serde::{Deserialize, Serialize};

/// Which final loss is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossColumn {
    Validation,
    Train,
}

/// Which parameters N counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamCount {
    Total,
    NonEmbedding,
}

/// Options of [`fit_runs`](super::fit_runs).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    /// Any of 1, 2, 3.
    pub approaches: Vec<u8>,
    /// Resamples per approach; 0 for no intervals.
    pub bootstrap: usize,
    /// Share of resamples inside an interval.
    pub level: f64,
    /// Seed of the resamples.
    pub seed: u64,
    pub loss: LossColumn,
    pub params: ParamCount,
    /// Compute in FLOPs at which the optimum is wanted.
    pub targets: Vec<f64>,
}

/// More resamples than this take memory and time and change no interval that matters.
const MOST_RESAMPLES: usize = 100_000;

impl Default for FitOptions {
    /// All approaches, 1,000 resamples, 90 % intervals, validation loss, all parameters, no targets.
    fn default() -> Self {
        FitOptions {
            approaches: vec![1, 2, 3],
            bootstrap: 1000,
            level: 0.9,
            seed: 0,
            loss: LossColumn::Validation,
            params: ParamCount::Total,
            targets: Vec::new(),
        }
    }
}

impl FitOptions {
    pub(crate) fn check(&self) -> Result<(), FitError> {
        let bad = |option, found: String, allowed| Err(FitError::BadOption { option, found, allowed });
        if !(self.level > 0.0 && self.level < 1.0) {
            return bad("level", self.level.to_string(), "a share between 0 and 1, such as 0.9");
        }
        if self.approaches.is_empty() || self.approaches.iter().any(|k| !(1..=3).contains(k)) {
            return bad("approaches", format!("{:?}", self.approaches), "one or more of 1, 2, 3");
        }
        if self.bootstrap > MOST_RESAMPLES {
            return bad("bootstrap", self.bootstrap.to_string(), "0 to 100000 resamples");
        }
        if let Some(target) = self.targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return bad("targets", target.to_string(), "FLOPs above 0");
        }
        Ok(())
    }
}
