//! What a report is made from.

use crate::fit::{Curve, FitReport, RunRecord};
use thiserror::Error;

/// A share of a training step's time.
#[derive(Debug, Clone, PartialEq)]
pub struct StepShare {
    /// What the time was spent on.
    pub label: String,
    /// Measured share of the step, 0 to 1.
    pub share: f64,
    /// Share that the cost model predicted, 0 to 1; none where it does not say.
    pub predicted: Option<f64>,
}

/// A study, as its report shows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReportInput {
    /// The study's name.
    pub title: String,
    /// A line below the title, such as where and when it ran; may be empty.
    pub subtitle: String,
    /// All rows of runs.csv.
    pub runs: Vec<RunRecord>,
    /// The metrics of the runs that have any.
    pub curves: Vec<Curve>,
    /// The fit; none when there is none yet.
    pub fit: Option<FitReport>,
    /// Why there is no fit; empty when there is one.
    pub fit_error: String,
    /// Where a step's time goes; without entries the section is left out.
    pub step_time: Vec<StepShare>,
    /// The sweep file, verbatim; without text the section is left out.
    pub sweep_file: String,
}

/// Why a report could not be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Nothing to show.
    #[error("the study `{title}` has no runs: there is nothing to report. Plan it first")]
    NoRuns { title: String },
    /// A share of time that is not one.
    #[error("step time `{label}`: its {field} is {found}, expected a number from 0 to 1")]
    BadShare { label: String, field: &'static str, found: f64 },
    /// The page's template failed: a defect of the report itself.
    #[error("the report's template cannot be filled in: {0}")]
    Template(#[from] minijinja::Error),
}
