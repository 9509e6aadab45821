//! Why no runs can be proposed.

use crate::file::ReadError;
use crate::fit::FitError;
use crate::fit::design::DesignError;
use crate::fit::input::InputError;
use crate::plan::PlanError;
use std::path::PathBuf;
use thiserror::Error;

/// Why no runs can be proposed, with what to change.
#[derive(Debug, Error, miette::Diagnostic)]
pub enum ProposeError {
    #[error("--{option}: found {found}, expected {allowed}")]
    BadOption { option: &'static str, found: String, allowed: &'static str },
    #[error(transparent)]
    Design(#[from] DesignError),
    #[error("the fit has {found}; choose one with --group: {allowed}")]
    Group { found: String, allowed: String },
    #[error("the fit has no law of approach 3: fit with --approach 3, and read its warnings")]
    NoLaw,
    #[error(
        "{} was made from `{table}`, which is not beside it: name the table or study that was fitted, as in \
         `isoflop propose RUNS --fit {}`", fit.display(), fit.display()
    )]
    NoRuns { fit: PathBuf, table: String },
    #[error(
        "{} is not what {} was made from: its blake3 differs. Name the table as it was fitted, or leave --fit out to fit it \
         again", runs.display(), fit.display()
    )]
    OtherTable { runs: PathBuf, fit: PathBuf },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Runs(#[from] FitError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sweep(#[from] ReadError),
    #[error("{}: {message}", path.display())]
    Base { path: PathBuf, message: String },
    #[error("{}: {source}", path.display())]
    Plan { path: PathBuf, source: PlanError },
    #[error(
        "--budget: {budget} FLOPs do not hold {runs} runs: the cheapest that can be planned costs {cheapest}; raise the \
         budget, ask for fewer runs, or widen --tokens-per-param"
    )]
    Budget { budget: String, runs: usize, cheapest: String },
    #[error(
        "no run can be planned of {flops} to {budget} FLOPs, {params} parameters and {tokens} tokens or more, and {ratio} tokens \
         for a parameter, which is where the fitted runs are; raise the budget, widen --tokens-per-param, or give a --base whose \
         family has such sizes"
    )]
    NoCandidates { flops: String, budget: String, params: String, tokens: String, ratio: String },
}
