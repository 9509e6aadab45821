//! The figures that show fitted laws against compute: loss, optimal size, optimal tokens.

use super::chart::{EndLabel, Mark, Plot, Shape, svg};
use super::figures::{Figure, View, cell, data_uri, size_name};
use super::input::ReportInput;
use super::scale::Axis;
use super::words::{growth, power, sound};
use crate::fit::{Estimate, Fit, FitReport, MinimumFlag, Optimum, RunStatus, format_count, format_flops};
use std::fmt::Write;

const COMPUTE: &str = "training compute C (FLOPs)";

fn fits(report: &FitReport) -> impl Iterator<Item = &Fit> {
    report.fits.iter().filter(|f| sound(f) && !f.optimum.is_empty())
}

fn beyond(report: &FitReport, top: bool) -> Mark {
    Mark::Beyond { x: report.inputs.flops[1], text: "beyond the data".into(), top }
}

fn band(points: &[Optimum], pick: fn(&Optimum) -> Option<&Estimate>) -> Vec<(f64, f64, f64)> {
    points
        .iter()
        .filter_map(|o| {
            let [low, high] = pick(o)?.interval?;
            Some((o.flops, low, high))
        })
        .collect()
}

fn line(points: &[Optimum], pick: fn(&Optimum) -> Option<&Estimate>) -> Vec<(f64, f64)> {
    points.iter().filter_map(|o| Some((o.flops, pick(o)?.value))).collect()
}

/// Final losses, the envelope of the training curves and the loss law against compute. None without finished runs.
pub(crate) fn loss(input: &ReportInput) -> Option<Figure> {
    let finished: Vec<_> = input
        .runs
        .iter()
        .filter(|r| r.status == RunStatus::Finished)
        .filter_map(|r| Some((r, r.validation_loss.or(r.train_loss)?)))
        .collect();
    if finished.is_empty() {
        return None;
    }
    let mut csv = String::from("what,flops,nats_per_token,low,high\n");
    let (mut marks, mut labels) = (Vec::new(), Vec::new());
    let mut xs: Vec<f64> = finished.iter().map(|(r, _)| r.flops).collect();
    let mut ys: Vec<f64> = finished.iter().map(|(_, l)| *l).collect();
    let mut caption = String::from("Each dot is a finished run");
    if let Some(report) = &input.fit {
        let law = fits(report).find(|f| f.approach == 3);
        if law.is_some() {
            marks.push(beyond(report, true));
        }
        if let Some(fit) = law {
            marks.push(Mark::Band {
                points: band(&fit.optimum, |o| o.loss.as_ref()),
                class: "a3".into(),
                style: String::new(),
            });
            let points = line(&fit.optimum, |o| o.loss.as_ref());
            xs.extend(points.iter().map(|p| p.0));
            ys.extend(points.iter().map(|p| p.1));
            if let Some(last) = points.last() {
                labels.push(EndLabel {
                    y: last.1,
                    text: "loss law".into(),
                    class: "a3".into(),
                    style: String::new(),
                });
            }
            for o in &fit.optimum {
                if let Some(l) = &o.loss {
                    let [low, high] = l.interval.unwrap_or([l.value; 2]);
                    let _ = writeln!(csv, "loss law,{:e},{},{low},{high}", o.flops, l.value);
                }
            }
            marks.push(Mark::Line {
                points,
                class: "a3".into(),
                style: String::new(),
                tip: "loss of the compute-optimal model, approach 3".into(),
            });
            caption.push_str("; the line is the loss law at its optimum, with its interval");
        }
        if let Some(fit) = report.approach(1) {
            let used = || fit.envelope.iter().filter(|p| p.interior);
            let points: Vec<_> = used().map(|p| (p.flops, p.loss)).collect();
            xs.extend(points.iter().map(|p| p.0));
            ys.extend(points.iter().map(|p| p.1));
            for p in used() {
                let _ = writeln!(csv, "envelope,{:e},{},,", p.flops, p.loss);
            }
            if let Some(last) = points.last() {
                labels.push(EndLabel {
                    y: last.1,
                    text: "envelope".into(),
                    class: "a1".into(),
                    style: String::new(),
                });
            }
            marks.push(Mark::Line {
                points,
                class: "a1".into(),
                style: String::new(),
                tip: "lower envelope of the training curves, approach 1".into(),
            });
            caption.push_str("; the dashed line is the lower envelope of the training curves");
        }
    }
    for (run, loss) in &finished {
        let tip = format!(
            "{}: {} parameters, {} FLOPs: {loss:.3} nats per token",
            run.id,
            size_name(run),
            format_flops(run.flops)
        );
        marks.push(Mark::Dot {
            x: run.flops,
            y: *loss,
            shape: Shape::Circle,
            size: 3.6,
            class: "run plain".into(),
            style: String::new(),
            tip,
        });
        let _ = writeln!(csv, "{},{:e},{loss},,", cell(&run.id), run.flops);
    }
    let plot = Plot {
        id: "loss-plot".into(),
        description: format!(
            "Final loss against training compute for {} runs, with the fitted law.",
            finished.len()
        ),
        x: Axis::around(COMPUTE, true, xs.into_iter(), 0.03),
        y: Axis::around("loss (nats per token)", true, ys.into_iter(), 0.05),
        marks,
        labels: vec![labels],
        label_title: String::new(),
    };
    Some(Figure {
        id: "loss",
        title: "Loss against compute",
        caption: caption + ".",
        toggles: Vec::new(),
        views: vec![View { name: "only".into(), svg: svg(&plot) }],
        csv: data_uri(&csv),
    })
}

/// What one of the two optimum figures shows.
struct Quantity {
    id: &'static str,
    plot: &'static str,
    title: &'static str,
    axis: &'static str,
    letter: &'static str,
    pick: fn(&Optimum) -> Option<&Estimate>,
    exponent: fn(&Fit) -> f64,
}

/// Optimal parameters against compute. None without a fit.
pub(crate) fn optimal_params(report: &FitReport) -> Option<Figure> {
    optimum(
        report,
        &Quantity {
            id: "optimal-n",
            plot: "optimal-n-plot",
            title: "Optimal size against compute",
            axis: "compute-optimal parameters N",
            letter: "N",
            pick: |o| Some(&o.params),
            exponent: |f| f.exponents.a,
        },
    )
}

/// Optimal tokens against compute. None without a fit.
pub(crate) fn optimal_tokens(report: &FitReport) -> Option<Figure> {
    optimum(
        report,
        &Quantity {
            id: "optimal-d",
            plot: "optimal-d-plot",
            title: "Optimal tokens against compute",
            axis: "compute-optimal tokens D",
            letter: "D",
            pick: |o| Some(&o.tokens),
            exponent: |f| f.exponents.b,
        },
    )
}

fn optimum(report: &FitReport, q: &Quantity) -> Option<Figure> {
    let is_params = q.letter == "N";
    let mut csv = format!("approach,what,flops,{},low,high\n", if is_params { "params" } else { "tokens" });
    let (mut marks, mut labels) = (vec![beyond(report, false)], Vec::new());
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for fit in fits(report) {
        let points = band(&fit.optimum, q.pick);
        marks.push(Mark::Band { points, class: format!("a{}", fit.approach), style: String::new() });
    }
    for fit in fits(report) {
        let points = line(&fit.optimum, q.pick);
        xs.extend(points.iter().map(|p| p.0));
        ys.extend(points.iter().map(|p| p.1));
        let law = growth((q.exponent)(fit));
        if let Some(last) = points.last() {
            labels.push(EndLabel {
                y: last.1,
                text: format!("{}: {law}", fit.approach),
                class: format!("a{}", fit.approach),
                style: String::new(),
            });
        }
        for o in &fit.optimum {
            if let Some(e) = (q.pick)(o) {
                let (low, high) = e
                    .interval
                    .map_or((String::new(), String::new()), |[l, h]| (l.to_string(), h.to_string()));
                let _ = writeln!(csv, "{},law,{:e},{},{low},{high}", fit.approach, o.flops, e.value);
            }
        }
        let tip = format!(
            "approach {}: {} grows as C to the power {:.3}",
            fit.approach,
            q.letter,
            (q.exponent)(fit)
        );
        marks.push(Mark::Line { points, class: format!("a{}", fit.approach), style: String::new(), tip });
    }
    for m in report.approach(2).into_iter().flat_map(|f| &f.minima) {
        let (Some(params), Some(tokens)) = (m.params, m.tokens) else { continue };
        let y = if is_params { params } else { tokens };
        let used = m.flag == MinimumFlag::Interior;
        let _ = writeln!(csv, "2,{},{:e},{y},,", if used { "minimum" } else { "minimum not used" }, m.budget);
        if used {
            xs.push(m.budget);
            ys.push(y);
        }
        marks.push(Mark::Dot {
            x: m.budget,
            y,
            shape: if used { Shape::Diamond } else { Shape::Cross },
            size: 5.0,
            class: if used { "minimum a2" } else { "minimum dropped a2" }.into(),
            style: String::new(),
            tip: format!("parabola at {} FLOPs: {} = {}", format_flops(m.budget), q.letter, format_count(y)),
        });
    }
    // The winners of the envelope, once each time the winner changes.
    let envelope = report.approach(1).map(|f| f.envelope.as_slice()).unwrap_or_default();
    for (i, p) in envelope.iter().enumerate().filter(|(_, p)| p.interior) {
        if i > 0 && envelope[i - 1].run == p.run && envelope[i - 1].interior {
            continue;
        }
        let y = if is_params { p.params } else { p.tokens };
        let _ = writeln!(csv, "1,envelope,{:e},{y},,", p.flops);
        let tip = format!(
            "{} has the lowest loss from {} FLOPs: {} = {}",
            p.run,
            format_flops(p.flops),
            q.letter,
            format_count(y)
        );
        marks.push(Mark::Dot {
            x: p.flops,
            y,
            shape: Shape::Square,
            size: 4.0,
            class: "a1".into(),
            style: String::new(),
            tip,
        });
    }
    if labels.is_empty() {
        return None;
    }
    let plot = Plot {
        id: q.plot.into(),
        description: format!("{} against training compute, fitted by {} approaches.", q.axis, labels.len()),
        x: Axis::around(COMPUTE, true, xs.into_iter(), 0.02),
        y: Axis::around(q.axis, true, ys.into_iter(), 0.06),
        marks,
        labels: vec![labels],
        label_title: "approach".into(),
    };
    let most = power(report.inputs.flops[1]);
    let caption = format!(
        "Lines are fitted power laws, bands their intervals. The shaded part lies beyond the largest run ({} FLOPs).",
        super::words::html(&most)
    );
    Some(Figure {
        id: q.id,
        title: q.title,
        caption,
        toggles: Vec::new(),
        views: vec![View { name: "only".into(), svg: svg(&plot) }],
        csv: data_uri(&csv),
    })
}
