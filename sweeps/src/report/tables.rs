//! The page's tables and lists as plain rows for the template.

use super::figures::size_name;
use super::input::ReportInput;
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

/// A warning in the page's words. Messages are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Notice {
    pub title: &'static str,
    pub messages: Vec<String>,
}

/// Marks the exponents of sentences like "grows as C^0.446, ..." as superscripts.
fn raised(message: &str) -> String {
    let mut parts = message.split("C^");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let number = part.char_indices().find(|&(i, c)| {
            let point = c == '.' && part[i + 1..].starts_with(|d: char| d.is_ascii_digit());
            !(c.is_ascii_digit() || c == '-' || point)
        });
        let end = number.map_or(part.len(), |(i, _)| i);
        out.push_str(&format!("C^{{{}}}{}", &part[..end], &part[end..]));
    }
    out
}

/// The warnings in their order, those of one kind together.
pub(crate) fn warnings(study: &ReportInput) -> Vec<Notice> {
    let title = |code| match code {
        WarningCode::RunsLeftOut => "Runs left out",
        WarningCode::MixedConventions => "Mixed FLOP counts",
        WarningCode::UnknownStatus => "Unknown statuses",
        WarningCode::RepeatedRuns => "Several rows of a run",
        WarningCode::LossAboveUniform => "Losses above any guess",
        WarningCode::ColumnChosen => "Choice of a column",
        WarningCode::FewerResamples => "Fewer resamples",
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
        WarningCode::ApproachBias => "Biased approach",
        WarningCode::EmbeddingShare => "Embeddings in small models",
    };
    let mut notices: Vec<Notice> = Vec::new();
    for warning in study.fit.iter().flat_map(|f| &f.warnings) {
        let title = title(warning.code);
        match notices.iter_mut().find(|n| n.title == title) {
            Some(notice) => notice.messages.push(html(&raised(&warning.message))),
            None => notices.push(Notice { title, messages: vec![html(&raised(&warning.message))] }),
        }
    }
    notices
}

/// One approach's row. Exponents and law are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Approach {
    pub class: String,
    pub name: &'static str,
    pub a: String,
    pub b: String,
    pub status: String,
}

/// All approaches side by side, and the loss law where there is one.
#[derive(Debug, Serialize)]
pub(crate) struct Approaches {
    pub rows: Vec<Approach>,
    /// L(N, D) with its numbers.
    pub law: Option<String>,
    pub parameters: Vec<Fact>,
    pub note: String,
}

/// The formula of a law of N and D, as HTML.
fn law_text(params: &Params) -> Option<String> {
    match params {
        Params::Loss(l) => Some(format!(
            "L(N, D) = {} + {} / N<sup>{:.3}</sup> + {} / D<sup>{:.3}</sup>",
            digits(l.e),
            digits(l.a),
            l.alpha,
            digits(l.b),
            l.beta
        )),
        Params::Kaplan(l) => Some(format!(
            "L(N, D) = (({} / N)<sup>{:.3}</sup> + {} / D)<sup>{:.3}</sup>",
            digits(l.n_c),
            l.alpha_n / l.alpha_d,
            digits(l.d_c),
            l.alpha_d
        )),
        Params::Power { .. } | Params::Compute(_) => None,
    }
}

/// A value and, smaller, its interval, as HTML.
fn ranged(value: f64, interval: Option<&[f64; 2]>, show: &dyn Fn(f64) -> String) -> String {
    let around = interval.map(|[low, high]| format!(" <small>{} to {}</small>", show(*low), show(*high)));
    format!("<b>{}</b>{}", show(value), around.unwrap_or_default())
}

/// A parameter of the law with three digits or so.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e4 || (v > 0.0 && v < 1e-3) => html(&power(value)),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

pub(crate) fn approaches(report: &FitReport) -> Approaches {
    let exponent = |v: f64| format!("{v:.3}").replace('-', "\u{2212}");
    let row = |f: &Fit| {
        let status = match f.status {
            FitStatus::Converged => "converged",
            FitStatus::AtBound => "parameter at its bound",
            FitStatus::BoundaryStart => "converged from a boundary start",
            FitStatus::Abnormal => "no optimum found",
        };
        let things = if f.approach == 1 { "curves" } else { "runs" };
        Approach {
            class: format!("a{}", f.approach),
            name: approach_name(f.approach),
            a: ranged(f.exponents.a, f.intervals.get("a"), &exponent),
            b: ranged(f.exponents.b, f.intervals.get("b"), &exponent),
            status: format!("{} {things}, {status}", f.n),
        }
    };
    let third = report.approach(3);
    let parameters = third.iter().flat_map(|f| {
        let named = f.params.named().into_iter();
        named.map(|(name, v)| Fact { name, value: ranged(v, f.intervals.get(name), &digits) })
    });
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
        rows: report.fits.iter().map(row).collect(),
        law: third.and_then(|f| law_text(&f.params)),
        parameters: parameters.collect(),
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
    let estimated = |e: &Estimate, show: &dyn Fn(f64) -> String| ranged(e.value, e.interval.as_ref(), show);
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
            params: estimated(&o.params, &format_count),
            tokens: estimated(&o.tokens, &format_count),
            loss: o.loss.as_ref().map(|l| estimated(l, &|v| format!("{v:.3}"))).unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_in_sentences_are_raised() {
        assert_eq!(raised("as C^0.446, without as C^-0.1."), "as C^{0.446}, without as C^{-0.1}.");
        assert_eq!(raised("no exponent"), "no exponent");
    }

    #[test]
    fn parameters_have_three_digits_or_so() {
        assert_eq!(
            [1.364, 70.43, 756.2, 93743.0].map(digits),
            ["1.364", "70.4", "756", "9.37×10<sup>4</sup>"]
        );
    }
}
