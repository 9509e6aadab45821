//! Fit and report of a study: what `isoflop fit` and `isoflop report` read and write.

use crate::file::{self, ReadError};
use crate::fit::{
    Curve, FitError, FitOptions, FitReport, RunRecord, RunStatus, fit_runs, read_curve, read_runs,
};
use crate::report::{ReportError, ReportInput, render};
use crate::step_times::step_times;
use crate::study::{Study, StudyError};
use isoflop_runtime::metrics::MetricsError;
use isoflop_runtime::rundir::{FileError, RunDir, replace};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    Sweep(#[from] ReadError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Profile(#[from] MetricsError),
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

/// Runs and training curves of a study.
#[derive(Debug)]
pub struct Results {
    pub runs: Vec<RunRecord>,
    /// Of the runs that finished.
    pub curves: Vec<Curve>,
}

/// Brings runs.csv up to date and reads it with the curves of its finished runs.
///
/// # Errors
/// When the directory is no study or one of its files cannot be read.
pub fn read(study: &Study) -> Result<Results, ResultsError> {
    study.write_runs(&study.read_plan()?)?;
    let runs = read_runs(study.runs_file())?;
    let curves = runs
        .iter()
        .filter(|run| run.status == RunStatus::Finished)
        .map(|run| read_curve(RunDir::new(study.run_dir(&run.id)).metrics(), &run.id))
        .collect::<Result<_, _>>()?;
    Ok(Results { runs, curves })
}

/// The options that the study's sweep file asks for.
///
/// # Errors
/// When the copy of the sweep file cannot be read.
pub fn options(study: &Study) -> Result<FitOptions, ResultsError> {
    study.read_plan()?;
    Ok(file::read(&study.sweep_file())?.fit)
}

/// Fits the study and writes fit.json.
///
/// # Errors
/// When there is too little to fit, or something cannot be read or written.
pub fn fit(study: &Study, options: &FitOptions) -> Result<FitReport, ResultsError> {
    let results = read(study)?;
    let report = fit_runs(&results.runs, &results.curves, options)?;
    let path = study.dir().join("fit.json");
    let mut json = serde_json::to_vec_pretty(&report)
        .map_err(|source| ResultsError::Json { path: path.clone(), source })?;
    json.push(b'\n');
    replace(&path, &json, true)?;
    Ok(report)
}

/// Fits the study, if it can be fitted yet, and writes report.html. Returns the page's path.
///
/// # Errors
/// When something cannot be read or written. Too few runs for a fit is no error: the page says so.
pub fn report(study: &Study) -> Result<PathBuf, ResultsError> {
    // A directory that is no study is told apart from one whose sweep file is broken.
    let plan = study.read_plan()?;
    let sweep = file::read(&study.sweep_file())?;
    let (fit, fit_error) = match fit(study, &sweep.fit) {
        Ok(report) => (Some(report), String::new()),
        Err(ResultsError::Fit(e)) => (None, e.to_string()),
        Err(e) => return Err(e),
    };
    let Results { runs, curves } = read(study)?;
    let sweep_path = study.sweep_file();
    let sweep_file =
        std::fs::read_to_string(&sweep_path).map_err(|e| FileError::new("read", &sweep_path, e))?;
    let input = ReportInput {
        title: sweep.name,
        subtitle: format!("{} runs", runs.len()),
        runs,
        curves,
        fit,
        fit_error,
        step_times: step_times(study, &plan)?,
        step_device: plan.device.unwrap_or_default(),
        sweep_file,
    };
    let path = study.dir().join("report.html");
    replace(&path, render(&input)?.as_bytes(), true)?;
    Ok(path)
}
