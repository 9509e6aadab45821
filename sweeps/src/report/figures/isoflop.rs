//! Final losses against size, with the parabola of each budget.

use super::{Figure, cell, finished, place, sorted, thinned, thinned_note};
use crate::fit::{Fit, MinimumFlag, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape, Stroke, step};
use crate::report::input::ReportInput;
use crate::report::words::power;
use std::fmt::Write;

/// Final losses against size, one parabola per budget. None without finished runs.
pub(crate) fn figure(input: &ReportInput) -> Option<Figure> {
    let finished = finished(input);
    if finished.is_empty() {
        return None;
    }
    let budgets = sorted(finished.iter().filter_map(|(r, _)| r.budget));
    let fit = input.fit.as_ref().and_then(|f| f.approach(2));
    let mut marks = Vec::new();
    let mut labels = Vec::new();
    let mut csv = String::from("run,budget,params,tokens,flops,nats_per_token\n");
    let colour = |budget: Option<f64>| match budget {
        Some(b) => Colour::Ramp(step(place(&budgets, b), budgets.len())),
        None => Colour::Muted,
    };
    // Without budgets the colour is the compute: 12 steps from the least to the most.
    let [least, most] =
        finished.iter().fold([f64::INFINITY, 0.0f64], |m, (r, _)| [m[0].min(r.flops), m[1].max(r.flops)]);
    let by_compute = |flops: f64| {
        let share = if most > least { (flops / least).ln() / (most / least).ln() } else { 0.5 };
        Colour::Ramp((11.0 * share).round() as usize)
    };
    for m in fit.map(|f| f.minima.as_slice()).unwrap_or_default() {
        let (low, high) = (m.tried[0] / 1.15, m.tried[1] * 1.15);
        let points =
            (0..=80).map(|i| low * (high / low).powf(f64::from(i) / 80.0)).map(|n| (n, m.loss_at(n)));
        let stroke = match m.flag {
            MinimumFlag::Interior => Stroke { width: 1.7, ..Stroke::PLAIN },
            _ => Stroke { width: 1.7, dash: "4 5", opacity: 0.7 },
        };
        let tip = format!("parabola at {} FLOPs", format_flops(m.budget));
        let colour = colour(Some(m.budget));
        marks.push(Mark::Line { points: points.collect(), colour, stroke, class: "", tip });
    }
    for (run, loss) in &finished {
        let budget = run.budget.map(|b| format!(", budget {} FLOPs", format_flops(b))).unwrap_or_default();
        let colour = if budgets.is_empty() { by_compute(run.flops) } else { colour(run.budget) };
        let tip = format!(
            "{}: {} parameters, {} tokens{budget}: {loss:.3} nats per token",
            run.id,
            format_count(run.params),
            format_count(run.tokens)
        );
        marks.push(Mark::dot((run.params, *loss), Shape::Circle, 4.0, colour, tip));
        let budget = run.budget.map(format_flops).unwrap_or_default();
        let _ =
            writeln!(csv, "{},{budget},{},{},{:e},{loss}", cell(&run.id), run.params, run.tokens, run.flops);
    }
    for m in fit.map(|f| f.minima.as_slice()).unwrap_or_default() {
        let (Some(x), Some(y), Some(d)) = (m.params, m.loss, m.tokens) else { continue };
        let (shape, end) = match m.flag {
            MinimumFlag::Interior => (Shape::Diamond, ""),
            _ => (Shape::Cross, ", not used"),
        };
        let tip = format!(
            "minimum at {} FLOPs: {} parameters, {} tokens, {y:.3} nats per token{end}",
            format_flops(m.budget),
            format_count(x),
            format_count(d)
        );
        marks.push(Mark::dot((x, y), shape, 6.0, colour(Some(m.budget)), tip));
    }
    for (i, &budget) in budgets.iter().enumerate() {
        let last = finished
            .iter()
            .filter(|(r, _)| r.budget.is_some_and(|b| (b / budget - 1.0).abs() < 1e-6))
            .max_by(|p, q| p.0.params.total_cmp(&q.0.params));
        if let Some((_, y)) = last {
            labels.push(EndLabel::new(*y, power(budget), Colour::Ramp(step(i, budgets.len()))));
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
    let title = if budgets.is_empty() { "Loss against size" } else { "IsoFLOP parabolas" };
    let caption = parabola_caption(fit, budgets.len()) + &thinned_note(input, finished.len());
    Some(Figure::single("isoflop", title, caption, plot, csv))
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
