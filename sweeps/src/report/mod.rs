//! The study as one self-contained HTML page: result, warnings, figures, runs. It needs no network and no script.
//! [`figures`] gives the same figures as files for papers.

mod approaches;
mod chart;
mod export;
mod figures;
mod input;
mod tables;
mod words;

pub use export::{FigureFile, FigureFormat, figures};
pub use input::{PartKind, ReportError, ReportInput, ReportSource, StepPart, StepTime};

use chart::{Medium, palette};
use figures::{Figure, step};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page as HTML text. The same study gives the same bytes.
///
/// # Errors
/// Neither runs nor a fit, a time that is none, or a template that cannot be filled in.
pub fn render(study: &ReportInput) -> Result<String, ReportError> {
    check(study)?;
    let (headline, meaning) = match &study.fit {
        Some(fit) => words::headline(fit),
        None => ("There is no fit yet.".into(), study.fit_error.clone()),
    };
    let shown = figures::all(study);
    let page = Page {
        style: palette::style() + STYLE + &shown.iter().map(Figure::style).collect::<String>(),
        script: SCRIPT,
        eyebrow: match study.source {
            ReportSource::Study => "isoflop study",
            ReportSource::Table => "isoflop fit of a table",
            ReportSource::Fit => "isoflop fit",
        },
        title: &study.title,
        subtitle: &study.subtitle,
        headline: words::html(&headline),
        meaning,
        facts: tables::facts(study),
        warnings: tables::warnings(study),
        fitted: study.fit.is_some(),
        left_out: figures::left_out(study, &shown),
        figures: shown.iter().map(PageFigure::of).collect(),
        approaches: study.fit.as_ref().map(approaches::approaches),
        optima: study.fit.as_ref().map(approaches::optima).unwrap_or_default(),
        runs: tables::runs(&study.runs),
        more_runs: study.runs.len().saturating_sub(tables::MOST_ROWS),
        step_rows: step::rows(study),
        sweep_file: &study.sweep_file,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", PAGE)?;
    Ok(environment.get_template("page.html")?.render(Value::from(Serde(&page)))?)
}

fn check(study: &ReportInput) -> Result<(), ReportError> {
    if study.runs.is_empty() && study.fit.is_none() {
        return Err(ReportError::NoRuns { title: study.title.clone() });
    }
    step::check(study)
}

/// What the template is filled with. Fields that hold HTML are marked `safe` there.
#[derive(Serialize)]
struct Page<'a> {
    style: String,
    script: &'static str,
    eyebrow: &'static str,
    title: &'a str,
    subtitle: &'a str,
    headline: String,
    meaning: String,
    facts: Vec<tables::Fact>,
    warnings: Vec<tables::Notice>,
    fitted: bool,
    figures: Vec<PageFigure<'a>>,
    /// Figures that these data do not allow, each with the reason.
    left_out: Vec<[&'static str; 2]>,
    approaches: Option<approaches::Approaches>,
    optima: Vec<approaches::Advice>,
    runs: Vec<tables::Row>,
    more_runs: usize,
    step_rows: Vec<step::Row>,
    sweep_file: &'a str,
}

/// A figure, drawn.
#[derive(Serialize)]
struct PageFigure<'a> {
    id: &'a str,
    title: &'a str,
    caption: &'a str,
    toggles: Vec<PageToggle<'a>>,
    /// Name and SVG.
    views: Vec<(&'a str, String)>,
    /// The plotted numbers as a data URI.
    csv: String,
}

#[derive(Serialize)]
struct PageToggle<'a> {
    name: &'a str,
    label: &'a str,
    options: &'a [(String, String)],
}

impl PageFigure<'_> {
    fn of<'a>(figure: &'a Figure) -> PageFigure<'a> {
        let toggle =
            |t: &'a figures::Toggle| PageToggle { name: t.name, label: t.label, options: &t.options };
        let views = figure.views.iter().map(|v| (v.name.as_str(), v.drawing.svg(Medium::Page)));
        PageFigure {
            id: figure.id,
            title: figure.title,
            caption: &figure.caption,
            toggles: figure.toggles.iter().map(toggle).collect(),
            views: views.collect(),
            csv: words::data_uri(&figure.csv),
        }
    }
}
