//! Where approach 3 misses: log residuals against compute, and against what normal noise would give.

use super::{Drawing, Figure, MOST_DOTS, Toggle, View, cell};
use crate::fit::diagnostics::{Diagnostics, Residual};
use crate::fit::{format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape, Stroke};
use crate::report::words::html;
use std::fmt::Write;

/// Sizes named in the margin, at most.
const NAMED_SIZES: usize = 6;
/// Outliers named in the plot, at most; the others say who they are when pointed at.
const NAMED_OUTLIERS: usize = 6;
const AXIS: &str = "log residual, measured less law (%)";

/// None without approach 3.
pub(crate) fn figure(diagnostics: &Diagnostics) -> Option<Figure> {
    let all = &diagnostics.residuals;
    if all.len() < 3 {
        return None;
    }
    // Outliers are always drawn.
    let every = all.len().div_ceil(MOST_DOTS).max(1);
    let drawn: Vec<&Residual> =
        all.iter().enumerate().filter(|(i, r)| i % every == 0 || r.outlier).map(|(_, r)| r).collect();
    let colours = Sizes::of(all.iter().map(|r| r.params));
    let mut ranked: Vec<f64> = all.iter().map(|r| r.residual).collect();
    ranked.sort_by(f64::total_cmp);
    let spread = Spread::of(&ranked);
    let mut csv = String::from(
        "run,params,tokens,flops,nats_per_token,predicted,log_residual,normal_quantile,outlier\n",
    );
    for r in &drawn {
        let quantile = spread.quantile(&ranked, r.residual);
        let _ = writeln!(
            csv,
            "{},{},{},{:e},{},{},{},{quantile:.4},{}",
            cell(&r.run),
            r.params,
            r.tokens,
            r.flops,
            r.loss,
            r.predicted,
            r.residual,
            r.outlier
        );
    }
    let quantiles: Vec<f64> = drawn.iter().map(|r| spread.quantile(&ranked, r.residual)).collect();
    let compute = plot("compute", "training compute C (FLOPs)", &drawn, |i| drawn[i].flops, &colours, None);
    let normal =
        plot("normal", "standard normal quantile", &drawn, |i| quantiles[i], &colours, Some(&spread));
    let views = [("compute", compute), ("normal", normal)]
        .map(|(name, plot)| View { name: name.into(), drawing: Drawing::Plot(Box::new(plot)) });
    Some(Figure {
        id: "residuals",
        title: "Residuals of the loss law",
        caption: caption(all, &drawn, &spread),
        toggles: vec![Toggle::new(
            "against",
            "against",
            &[("compute", "compute"), ("normal", "normal quantiles")],
        )],
        views: views.into(),
        csv,
    })
}

fn caption(all: &[Residual], drawn: &[&Residual], spread: &Spread) -> String {
    let outliers: Vec<&str> = all.iter().filter(|r| r.outlier).map(|r| r.run.as_str()).collect();
    let mut text = format!(
        "ln(measured / law) of {} runs; half lie within {:.2} % of their middle. Against compute there should be no trend; \
         against normal quantiles normal noise lies on the line, drawn by the middle half of the runs.",
        all.len(),
        100.0 * spread.half
    );
    match outliers.len() {
        0 => text.push_str(" No run is an outlier."),
        n if n <= NAMED_OUTLIERS => {
            let _ = write!(text, " Crosses are outliers: {}.", html(&outliers.join(", ")));
        }
        n => {
            let _ = write!(text, " Crosses are {n} outliers.");
        }
    }
    if drawn.len() < all.len() {
        let _ = write!(text, " {} of {} runs are drawn, evenly chosen.", drawn.len(), all.len());
    }
    text
}

/// The middle and the spread of the residuals by their quartiles.
struct Spread {
    middle: f64,
    /// Half the distance of the quartiles.
    half: f64,
}

impl Spread {
    fn of(ranked: &[f64]) -> Spread {
        let at = |share: f64| {
            let place = share * (ranked.len() - 1) as f64;
            let (i, rest) = (place.floor() as usize, place.fract());
            ranked[i] + rest * (ranked[(i + 1).min(ranked.len() - 1)] - ranked[i])
        };
        Spread { middle: at(0.5), half: 0.5 * (at(0.75) - at(0.25)) }
    }

    /// Residual at a normal quantile were the noise normal.
    fn line(&self, quantile: f64) -> f64 {
        self.middle + quantile * self.half / 0.674_489_750_196_081_7
    }

    /// The standard normal quantile at the rank of a residual.
    fn quantile(&self, ranked: &[f64], residual: f64) -> f64 {
        let below = ranked.partition_point(|r| *r < residual);
        let to = ranked.partition_point(|r| *r <= residual);
        crate::fit::diagnostics::normal_quantile(0.5 * (below + to) as f64 / ranked.len() as f64)
    }
}

/// Colours of sizes from the least to the most, evenly in log N.
pub(super) struct Sizes {
    ends: [f64; 2],
    pub named: Vec<f64>,
}

impl Sizes {
    pub fn of(sizes: impl Iterator<Item = f64>) -> Sizes {
        let mut sizes: Vec<f64> = sizes.collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        let (Some(&low), Some(&high)) = (sizes.first(), sizes.last()) else {
            return Sizes { ends: [1.0; 2], named: Vec::new() };
        };
        if sizes.len() > NAMED_SIZES {
            let last = NAMED_SIZES - 1;
            sizes = (0..=last).map(|i| low * (high / low).powf(i as f64 / last as f64)).collect();
        }
        Sizes { ends: [low, high], named: sizes }
    }

    pub fn colour(&self, params: f64) -> Colour {
        let [low, high] = self.ends;
        let share = if high > low { (params / low).ln() / (high / low).ln() } else { 0.5 };
        Colour::Ramp((11.0 * share.clamp(0.0, 1.0)).round() as usize)
    }
}

fn plot(
    name: &str,
    axis: &str,
    drawn: &[&Residual],
    x: impl Fn(usize) -> f64,
    colours: &Sizes,
    spread: Option<&Spread>,
) -> Plot {
    let percent = |r: &Residual| 100.0 * r.residual;
    let mut marks = Vec::new();
    let x_axis = Axis::around(axis, spread.is_none(), (0..drawn.len()).map(&x), 0.05);
    let y = Axis::around(AXIS, false, drawn.iter().map(|r| percent(r)).chain([0.0]), 0.08);
    let ends = [x_axis.low, x_axis.high];
    let (level, tip): (fn(f64, Option<&Spread>) -> f64, _) = match spread {
        None => (|_, _| 0.0, "the law"),
        Some(_) => (|q, s| s.map_or(0.0, |s| 100.0 * s.line(q)), "normal noise"),
    };
    marks.push(Mark::Line {
        points: ends.map(|e| (e, level(e, spread))).to_vec(),
        colour: Colour::Axis,
        stroke: Stroke { width: 1.4, dash: "6 4", opacity: 1.0 },
        class: "",
        tip: tip.into(),
    });
    let mut named = 0;
    for (i, r) in drawn.iter().enumerate() {
        let tip = format!(
            "{}{}: {} parameters, {} FLOPs: measured {:.4}, law {:.4}, {:+.2} %",
            r.run,
            if r.outlier { " (outlier)" } else { "" },
            format_count(r.params),
            format_flops(r.flops),
            r.loss,
            r.predicted,
            percent(r)
        );
        let (shape, size) = if r.outlier { (Shape::Cross, 5.0) } else { (Shape::Circle, 4.0) };
        let at = (x(i), percent(r));
        marks.push(Mark::dot(at, shape, size, colours.colour(r.params), tip));
        if r.outlier && named < NAMED_OUTLIERS {
            named += 1;
            marks.push(Mark::Word { x: at.0, y: at.1, text: r.run.chars().take(24).collect() });
        }
    }
    let labels = colours.named.iter().enumerate().map(|(i, &n)| {
        EndLabel::new(Plot::row(&y, i, colours.named.len()), format_count(n), colours.colour(n))
    });
    let labels = labels.collect();
    Plot {
        id: format!("residuals-{name}"),
        description: format!("{AXIS} against {axis} of {} runs.", drawn.len()),
        x: x_axis,
        y,
        marks,
        labels: vec![labels],
        label_title: "parameters N".into(),
    }
}
