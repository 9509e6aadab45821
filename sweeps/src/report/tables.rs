//! The page's tables and lists as plain rows for the template.

use super::figures::size_name;
use super::input::{ReportInput, StepShare};
use super::words::{approach_name, html, power, sound};
use crate::fit::{
    Estimate, Fit, FitReport, FitStatus, Params, RunRecord, RunStatus, WarningCode, format_count,
    format_flops,
};
use serde::Serialize;

/// A number worth knowing, with its name. `value` is HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// Counts and ranges of the study.
pub(crate) fn facts(study: &ReportInput) -> Vec<Fact> {
    let finished: Vec<&RunRecord> = study.runs.iter().filter(|r| r.status == RunStatus::Finished).collect();
    let mut facts =
        vec![Fact { name: "finished runs", value: format!("{} of {}", finished.len(), study.runs.len()) }];
    let range = |low: f64, high: f64, say: fn(f64) -> String| match low == high {
        true => say(low),
        false => format!("{} – {}", say(low), say(high)),
    };
    let ends = |pick: fn(&RunRecord) -> f64| {
        finished.iter().map(|r| pick(r)).fold([f64::INFINITY, 0.0f64], |m, v| [m[0].min(v), m[1].max(v)])
    };
    if !finished.is_empty() {
        let [low, high] = ends(|r| r.params);
        facts.push(Fact { name: "parameters", value: range(low, high, format_count) });
        let [low, high] = ends(|r| r.tokens);
        facts.push(Fact { name: "tokens", value: range(low, high, format_count) });
        let [low, high] = ends(|r| r.flops);
        facts.push(Fact { name: "FLOPs a run", value: range(low, high, |v| html(&power(v))) });
        let total: f64 = finished.iter().map(|r| r.flops).sum();
        facts.push(Fact { name: "FLOPs in all", value: html(&power(total)) });
    }
    let losses = finished.iter().filter_map(|r| r.validation_loss.or(r.train_loss));
    let best = losses.fold(f64::INFINITY, f64::min);
    if best.is_finite() {
        facts.push(Fact { name: "lowest loss, nats per token", value: format!("{best:.3}") });
    }
    facts
}

/// A warning in the page's words.
#[derive(Debug, Serialize)]
pub(crate) struct Notice {
    pub title: &'static str,
    pub messages: Vec<String>,
}

/// The warnings in their order, those of one kind together.
pub(crate) fn warnings(study: &ReportInput) -> Vec<Notice> {
    let title = |code| match code {
        WarningCode::RunsLeftOut => "Runs left out",
        WarningCode::MixedConventions => "Mixed FLOP counts",
        WarningCode::FewModels => "Few models",
        WarningCode::ApproachUnavailable => "Approach not fitted",
        WarningCode::MinimumAtEdge => "Minimum at the edge",
        WarningCode::WeakCurvature => "No clear minimum",
        WarningCode::WideGrid => "Sizes too far apart",
        WarningCode::FewBudgets => "Two budgets only",
        WarningCode::DecayingSchedule => "Decaying schedules",
        WarningCode::UnidentifiedExponents => "Exponents not determined",
        WarningCode::Outliers => "Outliers",
        WarningCode::ApproachesDisagree => "Approaches disagree",
        WarningCode::Extrapolation => "Far extrapolation",
        WarningCode::HeldOutError => "Largest runs not predicted",
    };
    let mut notices: Vec<Notice> = Vec::new();
    for warning in study.fit.iter().flat_map(|f| &f.warnings) {
        let title = title(warning.code);
        match notices.iter_mut().find(|n| n.title == title) {
            Some(notice) => notice.messages.push(warning.message.clone()),
            None => notices.push(Notice { title, messages: vec![warning.message.clone()] }),
        }
    }
    notices
}

/// The approaches as columns. Cells are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Approaches {
    pub columns: Vec<&'static str>,
    pub classes: Vec<String>,
    /// (name of the row, cells).
    pub rows: Vec<(String, Vec<String>)>,
    pub note: String,
}

/// All approaches side by side.
pub(crate) fn approaches(report: &FitReport) -> Approaches {
    let fits = &report.fits;
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Fit) -> String| {
        let cells: Vec<String> = fits.iter().map(cell).collect();
        if cells.iter().any(|c| !c.is_empty()) {
            rows.push((html(name), cells));
        }
    };
    let interval = |fit: &Fit, name: &str, show: &dyn Fn(f64) -> String| match fit.intervals.get(name) {
        Some([low, high]) => format!(" <small>{} to {}</small>", show(*low), show(*high)),
        None => String::new(),
    };
    let exponent = |v: f64, f: &Fit, name: &str| {
        format!("<b>{v:.3}</b>{}", interval(f, name, &|v| format!("{v:.2}").replace('-', "\u{2212}")))
    };
    row("exponent a of N", &|f| exponent(f.exponents.a, f, "a"));
    row("exponent b of D", &|f| exponent(f.exponents.b, f, "b"));
    row("status", &|f| {
        match f.status {
            FitStatus::Converged => "converged",
            FitStatus::AtBound => "parameter at its bound",
            FitStatus::BoundaryStart => "converged from a boundary start",
            FitStatus::Abnormal => "no optimum found",
        }
        .into()
    });
    row("runs", &|f| f.n.to_string());
    let of_law = |f: &Fit, pick: fn(&crate::fit::LossParams) -> f64, name: &str| match &f.params {
        Params::Loss(law) => {
            let value = pick(law);
            let show = |v: f64| match v.abs() {
                v if v >= 1e5 => html(&power(v)),
                v if v >= 100.0 => format!("{v:.0}"),
                v => format!("{v:.3}"),
            };
            format!("{}{}", show(value), interval(f, name, &show))
        }
        Params::Power { .. } => String::new(),
    };
    row("E, nats per token", &|f| of_law(f, |l| l.e, "E"));
    row("A", &|f| of_law(f, |l| l.a, "A"));
    row("B", &|f| of_law(f, |l| l.b, "B"));
    row("alpha", &|f| of_law(f, |l| l.alpha, "alpha"));
    row("beta", &|f| of_law(f, |l| l.beta, "beta"));
    let mut note = match report.fits.iter().find_map(|f| f.bootstrap.as_ref()) {
        Some(b) => format!("Small numbers are {:.0} % intervals from resampled runs.", 100.0 * b.level),
        None => String::new(),
    };
    if let Some(h) = &report.held_out {
        note.push_str(&format!(
            " Held-out check: fitted without its {} largest runs, approach 3 misses their losses by {:.1} %; the nearest smaller run misses by {:.1} %.",
            h.n,
            100.0 * h.error,
            100.0 * h.baseline_error
        ));
    }
    Approaches {
        columns: fits.iter().map(|f| approach_name(f.approach)).collect(),
        classes: fits.iter().map(|f| format!("a{}", f.approach)).collect(),
        rows,
        note,
    }
}

/// What the headline fit advises at a compute. Cells are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Advice {
    pub flops: String,
    pub why: &'static str,
    pub params: String,
    pub tokens: String,
    pub loss: String,
}

/// Compute-optimal models at the largest compute tried, ten times it, and at the targets. None without a sound fit.
pub(crate) fn optima(report: &FitReport) -> Option<Vec<Advice>> {
    let fit = report.headline().filter(|f| sound(f))?;
    let most = report.inputs.flops[1];
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
    let rows = fit.optimum.iter().filter_map(|o| {
        let why = match o.flops {
            c if near(c, most) => "largest run",
            c if near(c, 10.0 * most) => "ten times that",
            c if report.inputs.targets.iter().any(|t| near(*t, c)) => "target",
            _ => return None,
        };
        Some(Advice {
            flops: html(&power(o.flops)),
            why,
            params: ranged(&o.params, &format_count),
            tokens: ranged(&o.tokens, &format_count),
            loss: o.loss.as_ref().map(|l| ranged(l, &|v| format!("{v:.3}"))).unwrap_or_default(),
        })
    });
    let mut found: Vec<Advice> = Vec::new();
    for row in rows {
        if found.last().is_none_or(|last| last.flops != row.flops) {
            found.push(row);
        }
    }
    Some(found)
}

/// A value and, smaller, its interval, as HTML.
fn ranged(estimate: &Estimate, show: &dyn Fn(f64) -> String) -> String {
    let around = estimate.interval.map(|[l, h]| format!(" <small>{} to {}</small>", show(l), show(h)));
    format!("<b>{}</b>{}", show(estimate.value), around.unwrap_or_default())
}

/// A cell with the number it is sorted by.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub html: String,
    pub sort: String,
}

/// One row of the table of runs.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub id: String,
    pub size: String,
    pub status: &'static str,
    pub cells: Vec<Cell>,
    pub reason: String,
}

pub(crate) fn runs(runs: &[RunRecord]) -> Vec<Row> {
    let number = |value: Option<f64>, show: &dyn Fn(f64) -> String| Cell {
        html: value.map_or("–".into(), show),
        sort: value.map(|v| v.to_string()).unwrap_or_default(),
    };
    let flops = |v: f64| format!("<span title=\"{}\">{}</span>", format_flops(v), html(&power(v)));
    runs.iter()
        .map(|r| Row {
            id: r.id.clone(),
            size: size_name(r),
            status: r.status.name(),
            cells: vec![
                number(Some(r.params), &format_count),
                number(Some(r.tokens), &format_count),
                number(Some(r.flops), &flops),
                number(r.budget, &flops),
                number(r.seed.map(|s| s as f64), &|v| v.to_string()),
                number(r.train_loss, &|v| format!("{v:.4}")),
                number(r.validation_loss, &|v| format!("{v:.4}")),
            ],
            reason: r.reason.clone(),
        })
        .collect()
}

/// A bar of the step's time, in percent of the longest.
#[derive(Debug, Serialize)]
pub(crate) struct Bar {
    pub label: String,
    pub width: String,
    pub share: String,
    pub predicted_at: Option<String>,
    pub predicted: Option<String>,
}

pub(crate) fn step_time(shares: &[StepShare]) -> Vec<Bar> {
    let longest = shares.iter().map(|s| s.share.max(s.predicted.unwrap_or(0.0))).fold(1e-9, f64::max);
    let percent = |v: f64| format!("{:.1} %", 100.0 * v);
    shares
        .iter()
        .map(|s| Bar {
            label: s.label.clone(),
            width: format!("{:.2}%", 100.0 * s.share / longest),
            share: percent(s.share),
            predicted_at: s.predicted.map(|p| format!("{:.2}%", 100.0 * p / longest)),
            predicted: s.predicted.map(percent),
        })
        .collect()
}
