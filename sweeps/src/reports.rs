//! What `isoflop report` reads and writes: the page and the figures of a study, of a table of runs, or of a fit.json.

use crate::file;
use crate::fit::diagnostics::diagnose;
use crate::fit::input::{ReadOptions, read_file};
use crate::fit::{Downstream, FitDocument, FitOptions, FitReport, RunRecord, Warning, WarningCode};
use crate::report::{FigureFormat, ReportInput, ReportSource, figures, render};
use crate::results::{self, Chosen, Results, ResultsError, Wanted};
use crate::step_times::step_times;
use crate::study::Study;
use isoflop_runtime::rundir::{FileError, replace};
use std::path::{Path, PathBuf};

/// Fits a study, if it can be fitted yet, and gathers its report. Writes fit.json.
///
/// # Errors
/// When something cannot be read or written. Too few runs for a fit is no error: the page says so.
pub fn of_study(study: &Study, options: &FitOptions) -> Result<ReportInput, ResultsError> {
    // A directory that is no study is told apart from one whose sweep file is broken.
    let plan = study.read_plan()?;
    let sweep = file::read(&study.sweep_file())?;
    let results = results::read(study)?;
    let (fit, fit_error) = match results::fit_results(study, &results, options, Wanted::default()) {
        Ok((report, _)) => (Some(report), String::new()),
        Err(ResultsError::Fit(e)) => (None, e.to_string()),
        Err(e) => return Err(e),
    };
    let Results { runs, curves } = results;
    let sweep_path = study.sweep_file();
    let sweep_file =
        std::fs::read_to_string(&sweep_path).map_err(|e| FileError::new("read", &sweep_path, e))?;
    Ok(ReportInput {
        source: ReportSource::Study,
        title: sweep.name,
        subtitle: format!("{} runs", runs.len()),
        diagnostics: fit.as_ref().and_then(|f| f.approach(3)).map(|f| diagnose(&runs, f, options)),
        runs,
        curves,
        fit,
        fit_error,
        downstream: None,
        step_times: step_times(study, &plan)?,
        step_device: plan.device.unwrap_or_default(),
        sweep_file,
    })
}

/// Fits a table of runs, or one of its groups, and gathers its report. Writes nothing.
///
/// # Errors
/// When the table cannot be read; when it has groups and none of them is named. That it cannot be fitted is no error.
pub fn of_table(
    path: &Path,
    reading: &ReadOptions,
    options: &FitOptions,
    chosen: Chosen,
    group: Option<&str>,
) -> Result<ReportInput, ResultsError> {
    let input = read_file(path, reading)?;
    let mut groups: Vec<&str> = Vec::new();
    for name in &input.groups {
        if !groups.contains(&name.as_str()) {
            groups.push(name);
        }
    }
    let group = one_of(path, &groups, group)?.map(str::to_string);
    let mut document = results::fit_read(&input, options, chosen).map_err(|e| e.to_string());
    let left_out = &input.source.left_out;
    if let Ok(document) = &mut document
        && left_out.count > 0
    {
        let message = format!("{} rows of the table were left out: {}.", left_out.count, left_out.summary());
        let (code, value) = (WarningCode::RunsLeftOut, left_out.count as f64);
        let warning = Warning { code, message, value };
        document.warnings.insert(0, crate::fit::DocumentWarning { warning, group: None });
    }
    let belongs = |i: usize| group.is_none() || input.groups.get(i) == group.as_ref();
    let runs: Vec<RunRecord> =
        input.runs.iter().enumerate().filter(|(i, _)| belongs(*i)).map(|(_, r)| r.clone()).collect();
    let names: std::collections::HashSet<&str> = runs.iter().map(|r| r.id.as_str()).collect();
    let curves = input.curves.iter().filter(|c| names.contains(c.run.as_str())).cloned().collect();
    let fit = document.as_ref().ok().and_then(|d| of_group(d, group.as_deref()));
    let used = document.as_ref().map_or(options, |d| &d.inputs.options);
    Ok(ReportInput {
        source: ReportSource::Table,
        title: title(path, group.as_deref()),
        subtitle: format!("{} runs", runs.len()),
        diagnostics: fit.as_ref().and_then(|f| f.approach(3)).map(|f| diagnose(&runs, f, used)),
        curves,
        fit_error: match (&fit, &document) {
            (Some(_), _) => String::new(),
            (None, Err(error)) => error.clone(),
            (None, Ok(_)) => "this group cannot be fitted".into(),
        },
        downstream: document.as_ref().ok().and_then(|d| task_of(d, group.as_deref())),
        runs,
        fit,
        ..ReportInput::default()
    })
}

/// Whether a file is a fit.json rather than a table: a JSON object with fits and inputs.
pub fn is_fit(path: &Path) -> bool {
    let extension = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let text = if extension { std::fs::read_to_string(path).ok() } else { None };
    let value = text.and_then(|t| serde_json::from_str::<serde_json::Value>(&t).ok());
    value.is_some_and(|v| v.get("fits").is_some() && v.get("inputs").is_some())
}

/// The report of a fit.json, which holds laws and resamples but no runs.
///
/// # Errors
/// When it cannot be read; when it has groups and none of them is named.
pub fn of_fit(path: &Path, group: Option<&str>) -> Result<ReportInput, ResultsError> {
    let document = results::read_fit(path)?;
    let groups: Vec<&str> = document.inputs.groups.iter().map(|g| g.group.as_str()).collect();
    let group = one_of(path, &groups, group)?;
    let source = &document.inputs.source;
    Ok(ReportInput {
        source: ReportSource::Fit,
        title: title(path, group),
        subtitle: format!("of {}, by version {}", source.file, document.inputs.version),
        fit: of_group(&document, group),
        downstream: task_of(&document, group),
        fit_error: "this group cannot be fitted".into(),
        ..ReportInput::default()
    })
}

/// Writes the page, and the figures with their numbers into a directory. Returns the files written, the page first.
///
/// # Errors
/// When the report cannot be made or a file not be written.
pub fn write(
    input: &ReportInput,
    page: &Path,
    folder: Option<(&Path, &[FigureFormat])>,
) -> Result<Vec<PathBuf>, ResultsError> {
    replace(page, render(input)?.as_bytes(), true)?;
    let mut written = vec![page.to_owned()];
    if let Some((folder, formats)) = folder {
        std::fs::create_dir_all(folder).map_err(|e| FileError::new("create", folder, e))?;
        for file in figures(input, formats)? {
            let path = folder.join(&file.name);
            replace(&path, &file.bytes, true)?;
            written.push(path);
        }
    }
    Ok(written)
}

fn title(path: &Path, group: Option<&str>) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    group.map_or(name.to_string(), |g| format!("{name}: {g}"))
}

/// The group that is asked for; none where there are none.
fn one_of<'a>(path: &Path, groups: &[&'a str], asked: Option<&str>) -> Result<Option<&'a str>, ResultsError> {
    if groups.is_empty() && asked.is_none() {
        return Ok(None);
    }
    match groups.iter().find(|g| asked == Some(**g)) {
        Some(group) => Ok(Some(group)),
        None => {
            let mut names: Vec<String> = groups.iter().take(20).map(|g| format!("`{g}`")).collect();
            if groups.len() > 20 {
                names.push(format!("{} more", groups.len() - 20));
            }
            Err(ResultsError::Group {
                path: path.to_owned(),
                found: asked.map_or("no --group".into(), |g| format!("--group {g}")),
                allowed: if names.is_empty() { "none, it has no groups".into() } else { names.join(", ") },
            })
        }
    }
}

/// The accuracies of one group, or of all runs.
fn task_of(document: &FitDocument, group: Option<&str>) -> Option<Downstream> {
    document.downstream.iter().find(|d| d.group.as_deref() == group).cloned()
}

/// The fits of one group, or of all runs, as [`crate::fit::fit_runs`] gave them.
fn of_group(document: &FitDocument, group: Option<&str>) -> Option<FitReport> {
    let (_, inputs) = document.fitted().find(|(name, _)| *name == group)?;
    let of = |name: &Option<String>| name.as_deref() == group;
    let fits = || document.fits.iter().filter(|f| of(&f.group));
    let warnings = document.warnings.iter().filter(|w| w.group.is_none() || of(&w.group));
    Some(FitReport {
        fits: fits().map(|f| f.fit.clone()).collect(),
        warnings: warnings.map(|w| w.warning.clone()).collect(),
        held_out: fits().find_map(|f| f.held_out.clone()),
        without_outliers: fits().find_map(|f| f.without_outliers.as_deref().cloned()),
        variants: fits().flat_map(|f| f.variants.clone()).collect(),
        seed_noise: fits().find_map(|f| f.seed_noise),
        inputs: inputs.clone(),
    })
}
