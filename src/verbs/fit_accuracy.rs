//! What `isoflop fit` prints of accuracies: the sigmoids of all tasks, and accuracies of targets.

use super::fit::{estimate, headings, row};
use crate::output;
use isoflop_sweeps::fit::{FitDocument, Predictions, format_count, format_flops};

/// `0.812 [0.801, 0.825]`, or `0.250 given`.
fn parameter(d: &isoflop_sweeps::fit::Downstream, name: &str, value: f64) -> String {
    match d.intervals.get(name) {
        _ if d.fixed.iter().any(|f| f == name) => format!("{value:.3} given"),
        Some([low, high]) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => format!("{value:.3}"),
    }
}

/// The sigmoid of each task, and accuracies at the targets' compute; nothing without accuracies.
pub fn sigmoids(document: &FitDocument, grouped: bool) -> String {
    if document.downstream.is_empty() {
        return String::new();
    }
    let names = headings(grouped, &["floor", "ceiling", "k", "midpoint", "scatter", "held out", "no law"]);
    let mut table = output::table(&names, names.len());
    let share = |v: f64| format!("{v:.3}");
    for d in &document.downstream {
        let s = d.sigmoid;
        let held = d.held_out.as_ref();
        let cells = [
            parameter(d, "floor", s.floor),
            parameter(d, "ceiling", s.ceiling),
            parameter(d, "k", s.k),
            parameter(d, "midpoint", s.midpoint),
            share(d.residual),
            held.map(|h| share(h.error)).unwrap_or_default(),
            held.map(|h| share(h.baseline_error)).unwrap_or_default(),
        ];
        table.add_row(row(grouped, d.group.as_deref(), cells));
    }
    let mut text = format!("accuracy = floor + (ceiling - floor) / (1 + exp(k (L - midpoint)))\n{table}\n");
    let targets = &document.inputs.options.targets;
    let names = headings(grouped, &["FLOPs", "N*", "D*", "loss", "accuracy"]);
    let mut table = output::table(&names, names.len() - 4);
    for d in &document.downstream {
        for o in d.optimum.iter().filter(|o| targets.contains(&o.flops)) {
            let cells = [
                format_flops(o.flops),
                format_count(o.params),
                format_count(o.tokens),
                estimate(&o.loss, &|v| format!("{v:.4}")),
                estimate(&o.accuracy, &share),
            ];
            table.add_row(row(grouped, d.group.as_deref(), cells));
        }
    }
    if !table.is_empty() {
        text.push_str(&format!("{table}\n"));
    }
    text
}

/// Accuracies of a table of targets; nothing without accuracies.
pub fn predicted(predictions: &Predictions, grouped: bool) -> String {
    let names = headings(grouped, &["target", "N", "D", "FLOPs", "accuracy", "measured", "error", "no fit"]);
    let mut table = output::table(&names, names.len() - 7);
    for r in &predictions.rows {
        let Some(a) = &r.accuracy else { continue };
        let best = if r.at_optimum { "*" } else { "" };
        let cells = [
            r.id.clone(),
            format!("{}{best}", format_count(r.params)),
            format!("{}{best}", format_count(r.tokens)),
            format_flops(r.flops),
            estimate(&a.predicted, &|v| format!("{v:.3}")),
            a.measured.map(|v| format!("{v:.3}")).unwrap_or_default(),
            a.error.map(|v| format!("{v:+.3}")).unwrap_or_default(),
            a.baseline.map(|v| format!("{v:.3}")).unwrap_or_default(),
        ];
        table.add_row(row(grouped, r.group.as_deref(), cells));
    }
    if table.is_empty() {
        return String::new();
    }
    let mut text = format!("{table}\n");
    if let Some(errors) = &predictions.accuracies {
        text.push_str(&format!("mean error of {} measured accuracies: {:.3}", errors.measured, errors.error));
        if let Some(baseline) = errors.baseline_error {
            text.push_str(&format!("; of the nearest fitted runs: {baseline:.3}"));
        }
        text.push('\n');
    }
    text
}
