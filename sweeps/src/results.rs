//! Fits of studies and tables: what `isoflop fit` reads and writes.

use crate::file::{self, ReadError};
use crate::fit::input::{Input, InputError, ReadOptions, of_study, read_file, read_targets};
use crate::fit::{
    Curve, FitDocument, FitError, FitOptions, FitReport, LossColumn, ParamCount, RunRecord, RunStatus,
    fit_input, fit_runs, predict, read_curve, read_runs,
};
use crate::report::ReportError;
use crate::study::{Study, StudyError};
use isoflop_runtime::metrics::MetricsError;
use isoflop_runtime::rundir::{FileError, RunDir, replace};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    Sweep(#[from] ReadError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("{}: found {found}, expected --group with one of: {allowed}", path.display())]
    Group { path: PathBuf, found: String, allowed: String },
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

/// What to do with a fit beside making it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Where the fit is written; a study's otherwise as its fit.json, a table's nowhere.
    pub out: Option<&'a Path>,
    /// A table of targets whose losses are to be predicted.
    pub predict: Option<&'a Path>,
    /// Where the predictions are written as CSV.
    pub predictions: Option<&'a Path>,
}

/// Fits the study and writes fit.json, or `wanted.out` where given.
///
/// # Errors
/// When there is too little to fit, or something cannot be read or written.
pub fn fit(
    study: &Study,
    options: &FitOptions,
    wanted: Wanted<'_>,
) -> Result<(FitReport, FitDocument), ResultsError> {
    fit_results(study, &read(study)?, options, wanted)
}

/// As [`fit`], of what [`read`] gave.
///
/// # Errors
/// As there.
pub fn fit_results(
    study: &Study,
    results: &Results,
    options: &FitOptions,
    wanted: Wanted<'_>,
) -> Result<(FitReport, FitDocument), ResultsError> {
    let (report, mut document) = fit_only(study, results, options)?;
    let finished: Vec<RunRecord> =
        results.runs.iter().filter(|run| run.status == RunStatus::Finished).cloned().collect();
    predicted(&mut document, &finished, &[], &ReadOptions::default(), wanted)?;
    let own = study.dir().join("fit.json");
    write(wanted.out.unwrap_or(&own), &document)?;
    Ok((report, document))
}

/// As [`fit_results`], without writing anything.
///
/// # Errors
/// When there is too little to fit, or runs.csv cannot be read.
pub fn fit_only(
    study: &Study,
    results: &Results,
    options: &FitOptions,
) -> Result<(FitReport, FitDocument), ResultsError> {
    let report = fit_runs(&results.runs, &results.curves, options)?;
    let source = of_study(&study.runs_file())?;
    let document = FitDocument::of_study(&report, &results.curves, options, source);
    Ok((report, document))
}

/// Which options a user has chosen; the others follow the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chosen {
    pub loss: bool,
    pub params: bool,
}

/// Fits a table of runs. Writes nothing but what is wanted. The loss and the count of parameters are those of
/// `options` if `chosen`, else what the table has.
///
/// # Errors
/// When the table cannot be read or fitted, or something not be written.
pub fn fit_table(
    path: &Path,
    reading: &ReadOptions,
    options: &FitOptions,
    chosen: Chosen,
    wanted: Wanted<'_>,
) -> Result<FitDocument, ResultsError> {
    let input = read_file(path, reading)?;
    let mut document = fit_read(&input, options, chosen)?;
    predicted(&mut document, &input.runs, &input.groups, reading, wanted)?;
    if let Some(out) = wanted.out {
        write(out, &document)?;
    }
    Ok(document)
}

/// As [`fit_table`], of a table that was read; writes nothing.
///
/// # Errors
/// When it cannot be fitted.
pub fn fit_read(input: &Input, options: &FitOptions, chosen: Chosen) -> Result<FitDocument, FitError> {
    let mut options = options.clone();
    if !chosen.loss && !input.has_validation_loss() {
        options.loss = LossColumn::Train;
    }
    if !chosen.params && input.only_non_embedding() {
        options.params = ParamCount::NonEmbedding;
    }
    fit_input(input, &options)
}

fn predicted(
    document: &mut FitDocument,
    runs: &[RunRecord],
    groups: &[String],
    reading: &ReadOptions,
    wanted: Wanted<'_>,
) -> Result<(), ResultsError> {
    let Some(path) = wanted.predict else { return Ok(()) };
    let non_embedding = document.inputs.options.params == ParamCount::NonEmbedding;
    let targets = read_targets(path, reading, non_embedding)?;
    predict(document, runs, groups, &targets);
    match (wanted.predictions, &document.predictions) {
        (Some(out), Some(predictions)) => write_text(out, &predictions.csv()),
        _ => Ok(()),
    }
}

/// Reads a fit.json, with the resamples that intervals rest on.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read_fit(path: &Path) -> Result<FitDocument, ResultsError> {
    let text = std::fs::read_to_string(path).map_err(|e| FileError::new("read", path, e))?;
    let document: FitDocument =
        serde_json::from_str(&text).map_err(|source| ResultsError::Json { path: path.to_owned(), source })?;
    Ok(document.restored())
}

/// Writes a file whole, or leaves what was there.
///
/// # Errors
/// When it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), ResultsError> {
    Ok(replace(path, text.as_bytes(), true)?)
}

fn write(path: &Path, document: &FitDocument) -> Result<(), ResultsError> {
    let mut json = serde_json::to_vec_pretty(document)
        .map_err(|source| ResultsError::Json { path: path.to_owned(), source })?;
    json.push(b'\n');
    Ok(replace(path, &json, true)?)
}
