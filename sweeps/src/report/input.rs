//! What a report is made from.

use crate::fit::diagnostics::Diagnostics;
use crate::fit::{Curve, Downstream, FitReport, RunRecord};
use thiserror::Error;

/// What a launch is, for the colours of the step's figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    Product,
    Attention,
    /// A generated kernel.
    Kernel,
    /// Rows gathered, scattered or copied.
    Movement,
}

/// Launches of one kind and purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPart {
    pub label: String,
    pub kind: PartKind,
    pub launches: usize,
    /// Measured.
    pub seconds: f64,
    /// By the cost model; none where it has not said.
    pub predicted: Option<f64>,
}

/// Where the time of one training step of a size went.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    pub size: String,
    /// Runs that were profiled; seconds are medians over them.
    pub runs: usize,
    pub threads: usize,
    pub parts: Vec<StepPart>,
}

/// Where the runs of a report come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReportSource {
    #[default]
    Study,
    /// A table of runs.
    Table,
    /// A fit.json, which holds no runs.
    Fit,
}

/// A study, a table of runs or a fit, as its report shows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReportInput {
    pub source: ReportSource,
    /// The study's name, or the file's.
    pub title: String,
    /// A line below the title, such as where and when it ran; may be empty.
    pub subtitle: String,
    /// All rows of runs.csv, or of the table.
    pub runs: Vec<RunRecord>,
    /// The metrics of the runs that have any.
    pub curves: Vec<Curve>,
    /// The fit; none when there is none yet.
    pub fit: Option<FitReport>,
    /// What approach 3's fit says about itself and about these runs.
    pub diagnostics: Option<Diagnostics>,
    /// The law of a task's accuracy, where it was fitted.
    pub downstream: Option<Downstream>,
    /// Why there is no fit; empty when there is one.
    pub fit_error: String,
    /// Where a step's time goes; without entries the section is left out.
    pub step_times: Vec<StepTime>,
    /// The device whose cost model predicted them.
    pub step_device: String,
    /// The sweep file, verbatim; without text the section is left out.
    pub sweep_file: String,
}

/// Why a report could not be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Nothing to show.
    #[error("the study `{title}` has no runs: there is nothing to report. Plan it first")]
    NoRuns { title: String },
    /// An SVG that cannot be made an image: a defect of the report itself.
    #[error("the figure `{figure}` cannot be drawn as an image: {reason}")]
    Image { figure: String, reason: String },
    /// Text of an image needs a font.
    #[error(
        "no sans-serif font is installed, so PNG figures would have no text. Install one, such as fonts-dejavu, or write SVG"
    )]
    NoFont,
    /// A time that is none.
    #[error("step time of {size}, `{label}`: its {field} is {found}, expected seconds, 0 or more")]
    BadTime { size: String, label: String, field: &'static str, found: f64 },
    /// The page's template failed: a defect of the report itself.
    #[error("the report's template cannot be filled in: {0}")]
    Template(#[from] minijinja::Error),
}
