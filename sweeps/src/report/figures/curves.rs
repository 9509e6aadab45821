//! Training and validation loss along the runs.

use super::{Drawing, Figure, Toggle, View, cell, place, size_name, sorted, thinned};
use crate::fit::{Curve, CurvePoint, RunRecord, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape, Stroke, step};
use crate::report::input::ReportInput;
use crate::report::words::power;
use std::fmt::Write;

/// Points kept of a curve, evenly in log x.
const KEPT: usize = 110;
/// Curves are shown from this share of the shortest run on.
const FIRST_SHARE: f64 = 0.01;

/// The name of a run's size where it fits into the margin of a plot, else its parameters.
fn short_name(run: &RunRecord) -> String {
    let name = size_name(run);
    if name.chars().count() <= 8 { name } else { format_count(run.params) }
}

/// Means of at most `KEPT` groups of points that are neighbours in log x.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let points: Vec<_> = points.into_iter().filter(|p| p.0 > 0.0).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return points };
    if points.len() <= KEPT || last.0 <= first.0 {
        return points;
    }
    let scale = KEPT as f64 / (last.0 / first.0).ln();
    let mut groups: Vec<(usize, f64, f64, f64)> = Vec::new();
    for (x, y) in &points {
        let group = ((x / first.0).ln() * scale) as usize;
        match groups.last_mut() {
            Some(g) if g.0 == group => *g = (group, g.1 + x, g.2 + y, g.3 + 1.0),
            _ => groups.push((group, *x, *y, 1.0)),
        }
    }
    groups.into_iter().map(|(_, x, y, n)| (x / n, y / n)).collect()
}

type Pick = fn(&CurvePoint) -> Option<f64>;

/// Training and validation loss against tokens and against FLOPs. None without curves.
pub(crate) fn figure(input: &ReportInput) -> Option<Figure> {
    let shown: Vec<(&RunRecord, &Curve)> = input
        .runs
        .iter()
        .filter_map(|r| Some((r, input.curves.iter().find(|c| c.run == r.id && c.points.len() > 1)?)))
        .collect();
    if shown.is_empty() {
        return None;
    }
    let validated = shown.iter().any(|(_, c)| c.points.iter().any(|p| p.validation_loss.is_some()));
    let mut views = Vec::new();
    let mut csv = String::from("run,size,params,budget,loss,tokens,flops,nats_per_token\n");
    for (name, title, x) in [
        ("tokens", "training tokens", (|p| Some(p.tokens)) as Pick),
        ("flops", "training compute (FLOPs)", |p| Some(p.flops)),
    ] {
        let drawing = Drawing::Plot(Box::new(curve_plot(name, title, x, &shown)));
        views.push(View { name: name.to_owned(), drawing });
    }
    for (run, curve) in &shown {
        for (kind, pick) in KINDS {
            let tokens = thin(series(curve, |p| Some(p.tokens), pick));
            let flops = thin(series(curve, |p| Some(p.flops), pick));
            for (t, f) in tokens.iter().zip(&flops) {
                let budget = run.budget.map(format_flops).unwrap_or_default();
                let size = cell(&size_name(run));
                let _ = writeln!(
                    csv,
                    "{},{size},{},{budget},{kind},{:.6e},{:.6e},{:.5}",
                    cell(&run.id),
                    run.params,
                    t.0,
                    f.0,
                    t.1
                );
            }
        }
    }
    let mut toggles = vec![Toggle::new("x", "against", &[("tokens", "tokens"), ("flops", "FLOPs")])];
    if shown.iter().any(|(r, _)| r.budget.is_some()) {
        toggles.push(Toggle::new("colour", "colour", &[("size", "size"), ("budget", "budget")]));
    }
    if validated {
        let options = [("both", "both"), ("train", "train"), ("validation", "validation")];
        toggles.push(Toggle::new("loss", "loss", &options));
    }
    let caption = if validated {
        "Thin lines are training loss, thick lines with dots validation loss. One colour per model size or budget."
    } else {
        "Training loss of every run. One colour per model size or budget."
    };
    Some(Figure { id: "curves", title: "Loss curves", caption: caption.into(), toggles, views, csv })
}

const KINDS: [(&str, Pick); 2] = [("train", |p| p.train_loss), ("validation", |p| p.validation_loss)];

fn series(curve: &Curve, x: Pick, y: Pick) -> Vec<(f64, f64)> {
    curve.points.iter().filter_map(|p| Some((x(p)?, y(p)?))).collect()
}

fn curve_plot(name: &str, title: &str, x: Pick, shown: &[(&RunRecord, &Curve)]) -> Plot {
    let sizes = sorted(shown.iter().map(|(r, _)| r.params));
    let budgets = sorted(shown.iter().filter_map(|(r, _)| r.budget));
    let shortest = shown.iter().filter_map(|(_, c)| x(c.points.last()?)).fold(f64::INFINITY, f64::min);
    let from = FIRST_SHARE * shortest;
    let mut marks = Vec::new();
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for (run, curve) in shown {
        let by_budget = run.budget.map(|b| step(place(&budgets, b), budgets.len()));
        let colour = Colour::Either(step(place(&sizes, run.params), sizes.len()), by_budget);
        for (kind, pick) in KINDS {
            let points: Vec<_> = thin(series(curve, x, pick)).into_iter().filter(|p| p.0 >= from).collect();
            let Some(last) = points.last() else { continue };
            let tip = format!(
                "{}, {} parameters: {kind} loss {:.3} nats per token at the end",
                run.id,
                size_name(run),
                last.1
            );
            xs.extend(points.iter().map(|p| p.0));
            // Early losses would press the rest together.
            let late = points.iter().filter(|p| p.0 >= 0.03 * last.0);
            ys.extend(late.map(|p| p.1).filter(|y| *y > 0.0));
            let dots = if kind == "validation" && points.len() <= 40 { points.clone() } else { Vec::new() };
            let (class, stroke) = match kind {
                "train" => ("curve train", Stroke { width: 1.3, opacity: 0.75, ..Stroke::PLAIN }),
                _ => ("curve validation", Stroke::PLAIN),
            };
            marks.push(Mark::Line { points, colour, stroke, class, tip });
            for (x, y) in dots {
                let tip =
                    format!("{}, {} parameters: {kind} loss {y:.3} nats per token", run.id, size_name(run));
                let (shape, size) = (Shape::Circle, 2.0);
                marks.push(Mark::Dot { x, y, shape, size, colour, hollow: false, class, tip });
            }
        }
    }
    // Training lines below, validation lines above.
    marks.sort_by_key(
        |m| matches!(m, Mark::Line { class, .. } | Mark::Dot { class, .. } if class.ends_with("validation")),
    );
    let y = Axis::around("loss (nats per token)", true, ys.into_iter(), 0.04);
    // Both keys are read like a legend: in order, from the top.
    let size_labels = sizes.iter().enumerate().filter_map(|(i, &params)| {
        let (run, _) = shown.iter().find(|(r, _)| (r.params / params - 1.0).abs() < 1e-6)?;
        let colour = Colour::Ramp(step(i, sizes.len()));
        let label = EndLabel::new(Plot::row(&y, i, sizes.len()), short_name(run), colour);
        Some(EndLabel { class: "by-size", ..label })
    });
    let budget_labels = budgets.iter().enumerate().map(|(i, &budget)| {
        let colour = Colour::Ramp(step(i, budgets.len()));
        let label = EndLabel::new(Plot::row(&y, i, budgets.len()), power(budget), colour);
        EndLabel { class: "by-budget", ..label }
    });
    let labels = vec![thinned(size_labels.collect()), thinned(budget_labels.collect())];
    Plot {
        id: format!("curves-{name}"),
        description: format!("Loss in nats per token against {title} for {} runs.", shown.len()),
        x: Axis::around(title, true, xs.into_iter(), 0.0),
        y,
        marks,
        labels,
        label_title: String::new(),
    }
}
