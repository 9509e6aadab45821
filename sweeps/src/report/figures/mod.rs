//! The figures: what each shows, how it can be looked at, and its numbers as CSV.

mod accuracy;
mod cloud;
mod contour;
mod curves;
mod frontier;
mod held_out;
mod isoflop;
mod laws;
mod residuals;
pub(crate) mod step;
mod trace;

use super::chart::{EndLabel, Medium, Plot, svg};
use super::input::{ReportInput, ReportSource};
use crate::fit::{RunRecord, RunStatus, format_count};
use std::fmt::Write;

/// Runs drawn in one figure at most; of more, evenly chosen ones stand for all.
pub(crate) const MOST_DOTS: usize = 3000;

/// A choice above a figure; its options show one view or one colouring each.
#[derive(Debug)]
pub(crate) struct Toggle {
    pub name: &'static str,
    pub label: &'static str,
    /// (value, text); the first is chosen.
    pub options: Vec<(String, String)>,
}

impl Toggle {
    pub fn new(name: &'static str, label: &'static str, options: &[(&str, &str)]) -> Toggle {
        let options = options.iter().map(|(v, t)| ((*v).to_owned(), (*t).to_owned())).collect();
        Toggle { name, label, options }
    }
}

/// What is drawn.
#[derive(Debug)]
pub(crate) enum Drawing {
    Plot(Box<Plot>),
    Bars(step::Bars),
}

impl Drawing {
    pub fn svg(&self, medium: Medium) -> String {
        match self {
            Drawing::Plot(plot) => svg(plot, medium),
            Drawing::Bars(bars) => bars.svg(medium),
        }
    }
}

/// A drawing of a figure that is shown when its name is chosen.
#[derive(Debug)]
pub(crate) struct View {
    pub name: String,
    pub drawing: Drawing,
}

/// A figure with its caption and data.
#[derive(Debug)]
pub(crate) struct Figure {
    pub id: &'static str,
    pub title: &'static str,
    /// HTML.
    pub caption: String,
    /// Of several views the first toggle chooses one.
    pub toggles: Vec<Toggle>,
    pub views: Vec<View>,
    /// The plotted numbers.
    pub csv: String,
}

impl Figure {
    /// A figure with one view.
    pub fn single(id: &'static str, title: &'static str, caption: String, plot: Plot, csv: String) -> Figure {
        let views = vec![View { name: "only".into(), drawing: Drawing::Plot(Box::new(plot)) }];
        Figure { id, title, caption, toggles: Vec::new(), views, csv }
    }

    /// Hides every view whose option is not chosen.
    pub fn style(&self) -> String {
        let mut css = String::new();
        for View { name, .. } in self.views.iter().filter(|_| self.views.len() > 1) {
            let _ = writeln!(
                css,
                "#{}:not(:has(input[value=\"{name}\"]:checked)) .view-{name} {{ display: none; }}",
                self.id
            );
        }
        css
    }
}

/// All figures that the data allow, in the page's order.
pub(crate) fn all(study: &ReportInput) -> Vec<Figure> {
    let fit = study.fit.as_ref();
    let diagnostics = study.diagnostics.as_ref();
    [
        isoflop::figure(study),
        frontier::figure(study),
        fit.and_then(laws::optimal_params),
        fit.and_then(laws::optimal_tokens),
        fit.and_then(cloud::figure),
        diagnostics.and_then(|d| contour::figure(d, fit)),
        diagnostics.and_then(residuals::figure),
        diagnostics.and_then(|d| held_out::figure(d, fit)),
        study.downstream.as_ref().and_then(accuracy::figure),
        curves::figure(study),
        step::figure(study),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Figures that are missing, each with the reason.
pub(crate) fn left_out(study: &ReportInput, shown: &[Figure]) -> Vec<[&'static str; 2]> {
    let runs = match study.source {
        ReportSource::Fit => "a fit.json holds no runs; make the report of the study or the table",
        _ => "no finished run has a loss",
    };
    let law = match (study.fit.as_ref().and_then(|f| f.approach(3)), study.source) {
        (None, _) => "approach 3 was not fitted",
        (Some(_), ReportSource::Fit) => runs,
        (Some(_), _) => {
            "the data do not determine the law, its exponents are not free, or the runs are too many"
        }
    };
    let study_only = match study.source {
        ReportSource::Study => "no run was profiled",
        _ => "only a study measures it",
    };
    let curves = match study.source {
        ReportSource::Study => "no run has metrics of several steps",
        ReportSource::Table => "the table has one row for each run",
        ReportSource::Fit => runs,
    };
    let optimum = "no fit has an optimum";
    let accuracy = match study.source {
        ReportSource::Study => "a study measures losses only",
        _ => "no accuracies were fitted",
    };
    let all = [
        ("isoflop", "Loss against size", runs),
        ("loss", "Loss against compute", runs),
        ("optimal-n", "Optimal size against compute", optimum),
        ("optimal-d", "Optimal tokens against compute", optimum),
        ("cloud", "Optimal models by resample", "approach 3 has no resamples"),
        ("exponents", "Exponents of the loss law", law),
        ("residuals", "Residuals of the loss law", law),
        (
            "held-out",
            "Held out and predicted",
            if study.source == ReportSource::Fit { runs } else { "too few runs remain without the largest" },
        ),
        ("accuracy", "Accuracy in two steps", accuracy),
        ("curves", "Loss curves", curves),
        ("step-time", "Where a step\u{2019}s time goes", study_only),
    ];
    all.into_iter()
        .filter(|(id, ..)| !shown.iter().any(|f| f.id == *id))
        .map(|(_, title, why)| [title, why])
        .collect()
}

/// A CSV cell, quoted where it must be.
pub(crate) fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|a, b| (*a / *b - 1.0).abs() < 1e-6);
    values
}

fn place(values: &[f64], value: f64) -> usize {
    values.iter().position(|v| (v / value - 1.0).abs() < 1e-6).unwrap_or(0)
}

/// The name of a run's size, or its parameters.
pub(crate) fn size_name(run: &RunRecord) -> String {
    if run.size.is_empty() { format_count(run.params) } else { run.size.clone() }
}

/// The finished runs with their losses, thinned to what can be drawn.
fn finished(study: &ReportInput) -> Vec<(&RunRecord, f64)> {
    let loss = |r: &RunRecord| r.validation_loss.or(r.train_loss);
    let all: Vec<_> = study
        .runs
        .iter()
        .filter(|r| r.status == RunStatus::Finished)
        .filter_map(|r| Some((r, loss(r)?)))
        .collect();
    let every = all.len().div_ceil(MOST_DOTS).max(1);
    all.into_iter().step_by(every).collect()
}

/// A sentence for captions where not all runs are drawn.
fn thinned_note(study: &ReportInput, drawn: usize) -> String {
    let all = study.runs.iter().filter(|r| r.status == RunStatus::Finished).count();
    match all > drawn && all > MOST_DOTS {
        true => format!(" {drawn} of {all} runs are drawn, evenly chosen."),
        false => String::new(),
    }
}

/// At most 14 labels: the ends and evenly chosen ones between.
fn thinned(labels: Vec<EndLabel>) -> Vec<EndLabel> {
    let n = labels.len();
    let every = n.div_ceil(14).max(1);
    labels.into_iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == n).map(|(_, l)| l).collect()
}
