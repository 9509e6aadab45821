//! Compute-optimal size and tokens against compute, by all approaches.

use super::Figure;
use crate::fit::{Estimate, Fit, FitReport, MinimumFlag, Optimum, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape};
use crate::report::words::{around, growth, html, power};
use std::fmt::Write;

pub(super) const COMPUTE: &str = "training compute C (FLOPs)";

/// The fits that say what is optimal.
pub(super) fn fits(report: &FitReport) -> impl Iterator<Item = &Fit> {
    report.fits.iter().filter(|f| f.status.is_sound() && !f.optimum.is_empty())
}

pub(super) fn beyond(report: &FitReport, top: bool) -> Mark {
    Mark::Beyond { x: report.inputs.flops[1], text: "beyond the data".into(), top }
}

/// What one of the two figures shows.
struct Quantity {
    id: &'static str,
    plot: &'static str,
    title: &'static str,
    axis: &'static str,
    letter: &'static str,
    column: &'static str,
    pick: fn(&Optimum) -> &Estimate,
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
            column: "params",
            pick: |o| &o.params,
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
            column: "tokens",
            pick: |o| &o.tokens,
            exponent: |f| f.exponents.b,
        },
    )
}

fn optimum(report: &FitReport, q: &Quantity) -> Option<Figure> {
    let mut csv = format!("approach,what,flops,{},low,high\n", q.column);
    let (mut marks, mut labels) = (vec![beyond(report, false)], Vec::new());
    let mut points: Vec<(f64, f64)> = Vec::new();
    for fit in fits(report) {
        let band = fit.optimum.iter().filter_map(|o| {
            let [low, high] = (q.pick)(o).interval?;
            Some((o.flops, low, high))
        });
        let tip = format!("interval of approach {}", fit.approach);
        marks.push(Mark::Band { points: band.collect(), colour: Colour::Approach(fit.approach), tip });
    }
    for fit in fits(report) {
        let line: Vec<_> = fit.optimum.iter().map(|o| (o.flops, (q.pick)(o).value)).collect();
        let exponent = (q.exponent)(fit);
        if let Some(last) = line.last() {
            let text = format!("{}: {}", fit.approach, growth(exponent));
            labels.push(EndLabel::new(last.1, text, Colour::Approach(fit.approach)));
        }
        points.extend(&line);
        // Bands are shown whole unless they are so wide that they would press the lines together.
        points.extend(fit.optimum.iter().flat_map(|o| {
            let e = (q.pick)(o);
            let ends = e.interval.unwrap_or([e.value; 2]);
            ends.map(|end| (o.flops, end.clamp(e.value / 5.0, e.value * 5.0)))
        }));
        let tip = format!("approach {}: {} grows as C to the power {exponent:.3}", fit.approach, q.letter);
        marks.push(Mark::law(line, fit.approach, tip));
        for o in &fit.optimum {
            let e = (q.pick)(o);
            let end = |i: usize| e.interval.map(|ends| ends[i].to_string()).unwrap_or_default();
            let _ = writeln!(csv, "{},law,{:e},{},{},{}", fit.approach, o.flops, e.value, end(0), end(1));
            let tip = format!(
                "approach {} at {} FLOPs: {} = {}{}",
                fit.approach,
                format_flops(o.flops),
                q.letter,
                format_count(e.value),
                around(e.interval.as_ref(), &format_count)
            );
            marks.push(Mark::Value { x: o.flops, y: e.value, tip });
        }
    }
    if labels.is_empty() {
        return None;
    }
    points.extend(minima(report, q, &mut marks, &mut csv));
    winners(report, q, &mut marks, &mut csv);
    let plot = Plot {
        id: q.plot.into(),
        description: format!("{} against training compute, fitted by {} approaches.", q.axis, labels.len()),
        x: Axis::around(COMPUTE, true, points.iter().map(|p| p.0), 0.02),
        y: Axis::around(q.axis, true, points.iter().map(|p| p.1), 0.06),
        marks,
        labels: vec![labels],
        label_title: "approach".into(),
    };
    let level = report.fits.iter().find_map(|f| f.bootstrap.as_ref()).map(|b| 100.0 * b.level);
    let bands = level.map_or(String::new(), |l| format!(", bands their {l:.0} % intervals"));
    let caption = format!(
        "Lines are fitted power laws{bands}. The shaded part lies beyond the largest run ({} FLOPs).",
        html(&power(report.inputs.flops[1]))
    );
    Some(Figure::single(q.id, q.title, caption, plot, csv))
}

/// The minima of approach 2; returns the places of those used.
fn minima(report: &FitReport, q: &Quantity, marks: &mut Vec<Mark>, csv: &mut String) -> Vec<(f64, f64)> {
    let mut places = Vec::new();
    for m in report.approach(2).into_iter().flat_map(|f| &f.minima) {
        let (Some(params), Some(tokens)) = (m.params, m.tokens) else { continue };
        let y = if q.letter == "N" { params } else { tokens };
        let used = m.flag == MinimumFlag::Interior;
        let _ = writeln!(csv, "2,{},{:e},{y},,", if used { "minimum" } else { "minimum not used" }, m.budget);
        if used {
            places.push((m.budget, y));
        }
        let tip = format!(
            "minimum at {} FLOPs{}: {} = {}",
            format_flops(m.budget),
            if used { "" } else { ", not used" },
            q.letter,
            format_count(y)
        );
        let shape = if used { Shape::Diamond } else { Shape::Cross };
        marks.push(Mark::dot((m.budget, y), shape, 5.0, Colour::Approach(2), tip));
    }
    places
}

/// The winners of the envelope, once each time the winner changes.
fn winners(report: &FitReport, q: &Quantity, marks: &mut Vec<Mark>, csv: &mut String) {
    let envelope = report.approach(1).map(|f| f.envelope.as_slice()).unwrap_or_default();
    for (i, p) in envelope.iter().enumerate().filter(|(_, p)| p.interior) {
        if i > 0 && envelope[i - 1].run == p.run && envelope[i - 1].interior {
            continue;
        }
        let y = if q.letter == "N" { p.params } else { p.tokens };
        let _ = writeln!(csv, "1,envelope,{:e},{y},,", p.flops);
        let tip = format!(
            "{} has the lowest loss from {} FLOPs: {} = {}",
            p.run,
            format_flops(p.flops),
            q.letter,
            format_count(y)
        );
        marks.push(Mark::dot((p.flops, y), Shape::Square, 4.0, Colour::Approach(1), tip));
    }
}
