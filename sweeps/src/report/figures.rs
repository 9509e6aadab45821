//! The figures that show measured losses: training curves and isoFLOP parabolas.

use super::chart::{EndLabel, Mark, Plot, Shape, svg};
use super::input::ReportInput;
use super::scale::Axis;
use super::words::power;
use crate::fit::{Curve, CurvePoint, Fit, MinimumFlag, RunRecord, RunStatus, format_count, format_flops};
use serde::Serialize;
use std::fmt::Write;

/// Points kept of a curve, evenly in log x.
const KEPT: usize = 110;
/// Curves are shown from this share of the shortest run on.
const FIRST_SHARE: f64 = 0.01;

/// A choice above a figure; its options show one view or one colouring each.
#[derive(Debug, Serialize)]
pub(crate) struct Toggle {
    pub name: &'static str,
    pub label: &'static str,
    /// (value, text); the first is chosen.
    pub options: Vec<(String, String)>,
}

fn options(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(value, text)| ((*value).to_owned(), (*text).to_owned())).collect()
}

/// A drawing of a figure that is shown when its name is chosen.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    pub name: String,
    pub svg: String,
}

/// A figure with its caption and data.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub id: &'static str,
    pub title: &'static str,
    /// HTML.
    pub caption: String,
    pub toggles: Vec<Toggle>,
    pub views: Vec<View>,
    /// The plotted numbers, as a data URI.
    pub csv: String,
}

/// A data URI of CSV text.
pub(crate) fn data_uri(csv: &str) -> String {
    let mut uri = String::from("data:text/csv;charset=utf-8,");
    for byte in csv.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'.' | b'-' | b'_' => uri.push(byte as char),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// A CSV cell, quoted where it must be.
pub(crate) fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

/// The CSS variable of the i-th of n ordered colours.
pub(crate) fn ramp(i: usize, n: usize) -> String {
    let step = if n < 2 { 5 } else { (i as f64 * 11.0 / (n - 1) as f64).round() as usize };
    format!("var(--r{step})")
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
pub(crate) fn curves(input: &ReportInput) -> Option<Figure> {
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
        views.push(View { name: name.to_owned(), svg: svg(&curve_plot(name, title, x, &shown)) });
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
    let mut toggles = vec![Toggle {
        name: "x",
        label: "against",
        options: options(&[("tokens", "tokens"), ("flops", "FLOPs")]),
    }];
    if shown.iter().any(|(r, _)| r.budget.is_some()) {
        toggles.push(Toggle {
            name: "colour",
            label: "colour",
            options: options(&[("size", "size"), ("budget", "budget")]),
        });
    }
    if validated {
        let options = options(&[("both", "both"), ("train", "train"), ("validation", "validation")]);
        toggles.push(Toggle { name: "loss", label: "loss", options });
    }
    let caption = if validated {
        "Thin lines are training loss, thick lines with dots validation loss. One colour per model size or budget."
    } else {
        "Training loss of every run. One colour per model size or budget."
    };
    Some(Figure {
        id: "curves",
        title: "Loss curves",
        caption: caption.into(),
        toggles,
        views,
        csv: data_uri(&csv),
    })
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
        let by_budget = run.budget.map_or("var(--muted)".into(), |b| ramp(place(&budgets, b), budgets.len()));
        let style = format!("--cs:{};--cb:{by_budget}", ramp(place(&sizes, run.params), sizes.len()));
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
            marks.push(Mark::Line {
                points,
                class: format!("curve {kind}"),
                style: style.clone(),
                tip: tip.clone(),
            });
            for (x, y) in dots {
                let (class, style, tip) = (format!("curve {kind}"), style.clone(), tip.clone());
                marks.push(Mark::Dot { x, y, shape: Shape::Circle, size: 2.0, class, style, tip });
            }
        }
    }
    // Training lines below, validation lines above.
    marks.sort_by_key(
        |m| matches!(m, Mark::Line { class, .. } | Mark::Dot { class, .. } if class.ends_with("validation")),
    );
    let y = Axis::around("loss (nats per token)", true, ys.into_iter(), 0.04);
    // Both keys are read like a legend: in order, from the top.
    let row = |i: usize, n: usize| y.low * (y.high / y.low).powf(0.97 - 0.92 * i as f64 / n.max(14) as f64);
    let size_labels = sizes.iter().enumerate().filter_map(|(i, &params)| {
        let (run, _) = shown.iter().find(|(r, _)| (r.params / params - 1.0).abs() < 1e-6)?;
        let style = format!("--cs:{}", ramp(i, sizes.len()));
        Some(EndLabel { y: row(i, sizes.len()), text: short_name(run), class: "by-size".into(), style })
    });
    let budget_labels = budgets.iter().enumerate().map(|(i, &budget)| {
        let style = format!("--cb:{}", ramp(i, budgets.len()));
        EndLabel { y: row(i, budgets.len()), text: power(budget), class: "by-budget".into(), style }
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

/// At most 14 labels: the ends and evenly chosen ones between.
fn thinned(labels: Vec<EndLabel>) -> Vec<EndLabel> {
    let n = labels.len();
    let every = n.div_ceil(14).max(1);
    labels.into_iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == n).map(|(_, l)| l).collect()
}

/// Final losses against size, one parabola per budget. None without finished runs.
pub(crate) fn isoflop(input: &ReportInput) -> Option<Figure> {
    let finished: Vec<(&RunRecord, f64)> = input
        .runs
        .iter()
        .filter(|r| r.status == RunStatus::Finished)
        .filter_map(|r| Some((r, r.validation_loss.or(r.train_loss)?)))
        .collect();
    if finished.is_empty() {
        return None;
    }
    let budgets = sorted(finished.iter().filter_map(|(r, _)| r.budget));
    let fit = input.fit.as_ref().and_then(|f| f.approach(2));
    let mut marks = Vec::new();
    let mut labels = Vec::new();
    let mut csv = String::from("run,budget,params,tokens,flops,nats_per_token\n");
    let colour = |budget: Option<f64>| match budget {
        Some(b) => ramp(place(&budgets, b), budgets.len()),
        None => "var(--muted)".into(),
    };
    // Without budgets the colour is the compute: 12 steps from the least to the most.
    let [least, most] =
        finished.iter().fold([f64::INFINITY, 0.0f64], |m, (r, _)| [m[0].min(r.flops), m[1].max(r.flops)]);
    let by_compute = |flops: f64| {
        let share = if most > least { (flops / least).ln() / (most / least).ln() } else { 0.5 };
        ramp((11.0 * share).round() as usize, 12)
    };
    for m in fit.map(|f| f.minima.as_slice()).unwrap_or_default() {
        let style = format!("--c:{}", colour(Some(m.budget)));
        let (low, high) = (m.tried[0] / 1.15, m.tried[1] * 1.15);
        let points =
            (0..=80).map(|i| low * (high / low).powf(f64::from(i) / 80.0)).map(|n| (n, m.loss_at(n)));
        let class = if m.flag == MinimumFlag::Interior { "parabola" } else { "parabola dropped" };
        let tip = format!("parabola at {} FLOPs", format_flops(m.budget));
        marks.push(Mark::Line { points: points.collect(), class: class.into(), style, tip });
    }
    for (run, loss) in &finished {
        let budget = run.budget.map(|b| format!(", budget {} FLOPs", format_flops(b))).unwrap_or_default();
        marks.push(Mark::Dot {
            x: run.params,
            y: *loss,
            shape: Shape::Circle,
            size: 4.0,
            class: "run".into(),
            style: match budgets.is_empty() {
                true => format!("--c:{}", by_compute(run.flops)),
                false => format!("--c:{}", colour(run.budget)),
            },
            tip: format!(
                "{}: {} parameters, {} tokens{budget}: {loss:.3} nats per token",
                run.id,
                format_count(run.params),
                format_count(run.tokens)
            ),
        });
        let budget = run.budget.map(format_flops).unwrap_or_default();
        let _ =
            writeln!(csv, "{},{budget},{},{},{:e},{loss}", cell(&run.id), run.params, run.tokens, run.flops);
    }
    for m in fit.map(|f| f.minima.as_slice()).unwrap_or_default() {
        let (Some(x), Some(y), Some(d)) = (m.params, m.loss, m.tokens) else { continue };
        let (shape, class, end) = match m.flag {
            MinimumFlag::Interior => (Shape::Diamond, "minimum", ""),
            _ => (Shape::Cross, "minimum dropped", ", not used"),
        };
        marks.push(Mark::Dot {
            x,
            y,
            shape,
            size: 6.0,
            class: class.into(),
            style: format!("--c:{}", colour(Some(m.budget))),
            tip: format!(
                "minimum at {} FLOPs: {} parameters, {} tokens, {y:.3} nats per token{end}",
                format_flops(m.budget),
                format_count(x),
                format_count(d)
            ),
        });
    }
    for (i, &budget) in budgets.iter().enumerate() {
        let last = finished
            .iter()
            .filter(|(r, _)| r.budget.is_some_and(|b| (b / budget - 1.0).abs() < 1e-6))
            .max_by(|p, q| p.0.params.total_cmp(&q.0.params));
        if let Some((_, y)) = last {
            let style = format!("--c:{}", ramp(i, budgets.len()));
            labels.push(EndLabel { y: *y, text: power(budget), class: String::new(), style });
        }
    }
    let plot = Plot {
        id: "isoflop-plot".into(),
        description: format!(
            "Final loss against parameters for {} runs in {} isoFLOP budgets.",
            finished.len(),
            budgets.len()
        ),
        x: Axis::around("parameters N", true, finished.iter().map(|(r, _)| r.params), 0.05),
        y: Axis::around("final loss (nats per token)", false, finished.iter().map(|(_, l)| *l), 0.07),
        marks,
        labels: vec![thinned(labels)],
        label_title: if budgets.is_empty() { String::new() } else { "budget (FLOPs)".into() },
    };
    Some(Figure {
        id: "isoflop",
        title: if budgets.is_empty() { "Loss against size" } else { "IsoFLOP parabolas" },
        caption: parabola_caption(fit, budgets.len()),
        toggles: Vec::new(),
        views: vec![View { name: "only".into(), svg: svg(&plot) }],
        csv: data_uri(&csv),
    })
}

fn parabola_caption(fit: Option<&Fit>, budgets: usize) -> String {
    match fit {
        Some(fit) => {
            let used = fit.minima.iter().filter(|m| m.flag == MinimumFlag::Interior).count();
            let dropped = fit.minima.len() - used;
            let mut text = format!("Each dot is a run. Diamonds mark the minima of {used} budgets");
            if dropped > 0 {
                let _ = write!(
                    text,
                    "; crosses mark {dropped} that {} not used (see the warnings)",
                    if dropped == 1 { "is" } else { "are" }
                );
            }
            text + "."
        }
        None if budgets == 0 => {
            "Each dot is a run. The runs belong to no isoFLOP budget; the lighter the dot, the more compute."
                .into()
        }
        None => "Each dot is a run. Approach 2 was not fitted.".into(),
    }
}
