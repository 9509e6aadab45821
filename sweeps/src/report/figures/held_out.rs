//! Runs held out of approach 3 and predicted from the others, beside what was measured and beside no law at all.

use super::{Figure, cell};
use crate::fit::diagnostics::{Diagnostics, HeldOutRun};
use crate::fit::{FitReport, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Key, Mark, Plot, Shape};
use crate::report::words::around;
use std::fmt::Write;

/// None where too few runs are left without the largest.
pub(crate) fn figure(diagnostics: &Diagnostics, fit: Option<&FitReport>) -> Option<Figure> {
    let rows = &diagnostics.held_out;
    if rows.is_empty() {
        return None;
    }
    let mut csv = String::from(
        "run,params,tokens,flops,measured,predicted,low,high,error,nearest,nearest_loss,nearest_error\n",
    );
    let mut marks = Vec::new();
    let mut ys = Vec::new();
    for r in rows {
        let end = |i: usize| r.predicted.interval.map(|ends| ends[i].to_string()).unwrap_or_default();
        let _ = writeln!(
            csv,
            "{},{},{},{:e},{},{},{},{},{},{},{},{}",
            cell(&r.run),
            r.params,
            r.tokens,
            r.flops,
            r.measured,
            r.predicted.value,
            end(0),
            end(1),
            error(r),
            cell(&r.nearest),
            r.baseline,
            r.baseline / r.measured - 1.0
        );
        ys.extend([r.measured, r.predicted.value, r.baseline]);
        ys.extend(r.predicted.interval.into_iter().flatten());
        let said =
            format!("{}, {} parameters, {} FLOPs", r.run, format_count(r.params), format_flops(r.flops));
        let tip = format!("{said}: no law, the loss of {}: {:.3} nats per token", r.nearest, r.baseline);
        marks.push(Mark::dot((r.params, r.baseline), Shape::Cross, 4.0, Colour::Axis, tip));
        let tip = format!(
            "{said}: predicted {:.3}{} nats per token, {:+.2} %",
            r.predicted.value,
            around(r.predicted.interval.as_ref(), &|v| format!("{v:.3}")),
            100.0 * error(r)
        );
        if let Some([low, high]) = r.predicted.interval {
            let (at, colour, tip) = (r.params, Colour::Approach(3), tip.clone());
            marks.push(Mark::Interval { at, low, high, across: false, colour, tip });
        }
        marks.push(Mark::dot((r.params, r.predicted.value), Shape::Diamond, 5.0, Colour::Approach(3), tip));
        marks.push(Mark::Dot {
            x: r.params,
            y: r.measured,
            shape: Shape::Circle,
            size: 5.0,
            colour: Colour::Ink,
            hollow: true,
            class: "",
            tip: format!("{said}: measured {:.3} nats per token", r.measured),
        });
    }
    let y = Axis::around("loss (nats per token)", false, ys.into_iter(), 0.07);
    let label =
        |i, text: &str, colour, key| EndLabel::new(Plot::row(&y, i, 3), text.into(), colour).keyed(key);
    let labels = vec![
        label(0, "measured", Colour::Ink, Key::Hollow(Shape::Circle)),
        label(1, "predicted", Colour::Approach(3), Key::Full(Shape::Diamond)),
        label(2, "no law", Colour::Axis, Key::Full(Shape::Cross)),
    ];
    let plot = Plot {
        id: "held-out-plot".into(),
        description: format!("Measured and predicted losses of {} runs that were held out.", rows.len()),
        x: Axis::around("parameters N", true, rows.iter().map(|r| r.params), 0.08),
        y,
        marks,
        labels: vec![labels],
        label_title: String::new(),
    };
    Some(Figure::single("held-out", "Held out and predicted", caption(rows, fit), plot, csv))
}

fn error(r: &HeldOutRun) -> f64 {
    r.predicted.value / r.measured - 1.0
}

fn caption(rows: &[HeldOutRun], fit: Option<&FitReport>) -> String {
    let n = rows.len() as f64;
    let mean =
        |error: &dyn Fn(&HeldOutRun) -> f64| 100.0 * rows.iter().map(|r| error(r).abs()).sum::<f64>() / n;
    let mut text = format!(
        "The {} largest runs, predicted by a law fitted without them. It misses by {:.2} % on average; without any law, the nearest \
         smaller run misses by {:.2} %.",
        rows.len(),
        mean(&error),
        mean(&|r| r.baseline / r.measured - 1.0)
    );
    if let Some(b) = fit.and_then(|f| f.approach(3)).and_then(|f| f.bootstrap) {
        let _ = write!(
            text,
            " Bars are {:.0} % intervals of the law; a single run scatters about it.",
            100.0 * b.level
        );
    }
    text
}
