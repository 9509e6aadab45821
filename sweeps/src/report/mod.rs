//! The study as one self-contained HTML page: result, warnings, figures, runs. It needs no network and no script.

mod chart;
mod figures;
mod input;
mod laws;
mod scale;
mod step;
mod tables;
mod words;

pub use input::{PartKind, ReportError, ReportInput, StepPart, StepTime};

use figures::Figure;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page as HTML text. The same study gives the same bytes.
///
/// # Errors
/// A study without runs, a time that is none, or a template that cannot be filled in.
pub fn render(study: &ReportInput) -> Result<String, ReportError> {
    if study.runs.is_empty() {
        return Err(ReportError::NoRuns { title: study.title.clone() });
    }
    step::check(study)?;
    let (headline, meaning) = match &study.fit {
        Some(fit) => words::headline(fit),
        None => ("There is no fit yet.".into(), study.fit_error.clone()),
    };
    let page = Page {
        style: STYLE,
        script: SCRIPT,
        title: &study.title,
        subtitle: &study.subtitle,
        headline: words::html(&headline),
        meaning,
        facts: tables::facts(study),
        warnings: tables::warnings(study),
        fitted: study.fit.is_some(),
        figures: figures(study),
        approaches: study.fit.as_ref().map(tables::approaches),
        optima: study.fit.as_ref().and_then(tables::optima),
        runs: tables::runs(&study.runs),
        step_rows: step::rows(study),
        step_style: step::style(study),
        sweep_file: &study.sweep_file,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", PAGE)?;
    Ok(environment.get_template("page.html")?.render(Value::from(Serde(&page)))?)
}

/// What the template is filled with. Fields that hold HTML are marked `safe` there.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    script: &'static str,
    title: &'a str,
    subtitle: &'a str,
    headline: String,
    meaning: String,
    facts: Vec<tables::Fact>,
    warnings: Vec<tables::Notice>,
    fitted: bool,
    figures: Vec<Figure>,
    approaches: Option<tables::Approaches>,
    optima: Option<Vec<tables::Advice>>,
    runs: Vec<tables::Row>,
    step_rows: Vec<step::Row>,
    step_style: String,
    sweep_file: &'a str,
}

fn figures(study: &ReportInput) -> Vec<Figure> {
    let fit = study.fit.as_ref();
    [
        figures::isoflop(study),
        laws::loss(study),
        fit.and_then(laws::optimal_params),
        fit.and_then(laws::optimal_tokens),
        figures::curves(study),
        step::figure(study),
    ]
    .into_iter()
    .flatten()
    .collect()
}
