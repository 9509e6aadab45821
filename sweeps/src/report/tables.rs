//! The page's tables and lists as plain rows for the template.

use super::figures::size_name;
use super::input::ReportInput;
use super::words::{html, power};
use crate::fit::{RunRecord, RunStatus, WarningCode, format_count, format_flops};
use serde::Serialize;

/// Rows of the table of runs, at most: a browser sorts that many at once.
pub(crate) const MOST_ROWS: usize = 3000;

/// A number worth knowing, with its name. `value` is HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// Counts and ranges of the study.
pub(crate) fn facts(study: &ReportInput) -> Vec<Fact> {
    let finished: Vec<&RunRecord> = study.runs.iter().filter(|r| r.status == RunStatus::Finished).collect();
    let mut facts = Vec::new();
    if !study.runs.is_empty() {
        let value = format!("{} of {}", finished.len(), study.runs.len());
        facts.push(Fact { name: "finished runs", value });
    }
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
        WarningCode::DownstreamUnavailable => "Accuracy not fitted",
        WarningCode::AccuracyAtChance => "Accuracy at chance",
        WarningCode::BelowChance => "Accuracy below chance",
        WarningCode::UnidentifiedSigmoid => "Sigmoid not determined",
        WarningCode::AsymptoteUnidentified => "End of the sigmoid not determined",
        WarningCode::NotMonotone => "Accuracy against its loss",
        WarningCode::LossBeyondData => "Losses beyond the data",
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

/// The first [`MOST_ROWS`] runs.
pub(crate) fn runs(runs: &[RunRecord]) -> Vec<Row> {
    let number = |value: Option<f64>, show: &dyn Fn(f64) -> String| Cell {
        html: value.map_or("–".into(), show),
        sort: value.map(|v| v.to_string()).unwrap_or_default(),
    };
    let flops = |v: f64| format!("<span title=\"{}\">{}</span>", format_flops(v), html(&power(v)));
    runs.iter()
        .take(MOST_ROWS)
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
}
