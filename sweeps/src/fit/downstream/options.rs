//! How accuracies are fitted: floors by task, the ceiling, and the width of the Huber terms.

use crate::fit::error::FitError;
use crate::fit::options::Objective;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Width of the quadratic part of the Huber terms in accuracy: the noise of a task of about a thousand questions.
const DELTA: f64 = 0.02;

/// Options of the sigmoid.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DownstreamOptions {
    /// Accuracies of a guess by task, to which floors are fixed; under the empty name that of every other task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chance: BTreeMap<String, f64>,
    /// The accuracy to which ceilings are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<f64>,
    /// Width of the quadratic part of the Huber terms, in accuracy; 0.02 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
}

impl DownstreamOptions {
    pub(crate) fn is_default(&self) -> bool {
        *self == DownstreamOptions::default()
    }

    /// The floor of a task, where it is given.
    pub(crate) fn chance_of(&self, task: Option<&str>) -> Option<f64> {
        task.and_then(|t| self.chance.get(t)).or_else(|| self.chance.get("")).copied()
    }

    /// The width for an objective; infinite for squares.
    pub(crate) fn delta(&self, objective: Objective) -> f64 {
        if objective.is_huber() { self.delta.unwrap_or(DELTA) } else { f64::INFINITY }
    }

    pub(crate) fn check(&self) -> Result<(), FitError> {
        let bad = |option, found: String, allowed| Err(FitError::BadOption { option, found, allowed });
        let ceiling = self.ceiling.unwrap_or(1.0);
        if !(ceiling > 0.0 && ceiling <= 1.0) {
            return bad("ceiling", ceiling.to_string(), "an accuracy above 0 up to 1, such as 1");
        }
        if let Some((task, chance)) = self.chance.iter().find(|(_, c)| !(**c >= 0.0 && **c < ceiling)) {
            let found = if task.is_empty() { chance.to_string() } else { format!("{chance} for `{task}`") };
            return bad("chance", found, "an accuracy from 0 and below the ceiling, such as 0.25");
        }
        match self.delta {
            Some(d) if !(d.is_finite() && d > 0.0) => {
                bad("accuracy-delta", d.to_string(), "a width in accuracy above 0, such as 0.02")
            }
            _ => Ok(()),
        }
    }
}
