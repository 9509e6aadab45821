//! How well alpha and beta are known together: contours of the profiled objective, with the resamples over them.

use super::Figure;
use super::trace::trace;
use crate::fit::diagnostics::{Contour, Diagnostics, LEVELS};
use crate::fit::{FitReport, Params};
use crate::report::chart::{Axis, Colour, EndLabel, Key, Mark, Plot, Shape, Stroke};
use std::fmt::Write;

/// Resamples drawn, at most.
const DRAWS: usize = 300;

/// None without approach 3, or where its exponents are not both free.
pub(crate) fn figure(diagnostics: &Diagnostics, fit: Option<&FitReport>) -> Option<Figure> {
    let contour = diagnostics.contour.as_ref()?;
    let draws: Vec<[f64; 2]> = fit
        .and_then(|f| f.approach(3))
        .map(|f| f.cloud.draws.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|law| match law {
            Params::Loss(law) => Some([law.alpha, law.beta]),
            _ => None,
        })
        .collect();
    let [alpha, beta] = contour.best;
    let mut csv = String::from("what,alpha,beta,rise\n");
    let mut marks = Vec::new();
    for draw in draws.iter().take(DRAWS) {
        let tip = format!("a resample: alpha {:.3}, beta {:.3}", draw[0], draw[1]);
        marks.push(Mark::Dot {
            x: draw[0],
            y: draw[1],
            shape: Shape::Circle,
            size: 1.9,
            colour: Colour::Muted,
            hollow: false,
            class: "draw",
            tip,
        });
        let _ = writeln!(csv, "resample,{},{},", draw[0], draw[1]);
    }
    for (i, a) in contour.alpha.iter().enumerate() {
        for (j, b) in contour.beta.iter().enumerate() {
            let _ = writeln!(csv, "profile,{a},{b},{}", contour.rise[i][j]);
        }
    }
    let (x, y) = window(contour);
    if x.low < y.high && y.low < x.high {
        let ends = [x.low.max(y.low), x.high.min(y.high)];
        marks.push(Mark::Line {
            points: ends.map(|e| (e, e)).to_vec(),
            colour: Colour::Axis,
            stroke: Stroke { width: 1.2, dash: "2 4", opacity: 1.0 },
            class: "",
            tip: "alpha = beta: N and D grow alike, a = b = 0.5".into(),
        });
        let at = 0.96 * ends[0] + 0.04 * ends[1];
        marks.push(Mark::Word { x: at, y: at, text: "a = 0.5".into() });
    }
    let styles = [
        Stroke { width: 2.6, ..Stroke::PLAIN },
        Stroke { width: 1.6, ..Stroke::PLAIN },
        Stroke { width: 1.6, dash: "5 4", opacity: 1.0 },
    ];
    let mut labels = Vec::new();
    for (k, (share, stroke)) in LEVELS.iter().zip(styles).enumerate() {
        let tip = format!("{:.0} % confidence in alpha and beta together", 100.0 * share);
        for points in trace(contour, Contour::limit(*share)) {
            let colour = Colour::Approach(3);
            marks.push(Mark::Line { points, colour, stroke, class: "", tip: tip.clone() });
        }
        let label =
            EndLabel::new(Plot::row(&y, k + 1, 4), format!("{:.0} %", 100.0 * share), Colour::Approach(3));
        labels.push(label.keyed(Key::Line(stroke)));
    }
    let tip = format!("optimum: alpha {alpha:.4}, beta {beta:.4}, a = {:.3}", beta / (alpha + beta));
    marks.push(Mark::dot((alpha, beta), Shape::Diamond, 6.0, Colour::Approach(3), tip));
    let _ = writeln!(csv, "optimum,{alpha},{beta},0");
    let optimum = EndLabel::new(Plot::row(&y, 0, 4), "optimum".into(), Colour::Approach(3));
    labels.insert(0, optimum.keyed(Key::Full(Shape::Diamond)));
    if !draws.is_empty() {
        labels.push(EndLabel::new(Plot::row(&y, LEVELS.len() + 1, 4), "resamples".into(), Colour::Muted));
    }
    let plot = Plot {
        id: "exponents-plot".into(),
        description: format!(
            "Contours of confidence of alpha and beta around their optimum, {alpha:.3} and {beta:.3}."
        ),
        x,
        y,
        marks,
        labels: vec![labels],
        label_title: String::new(),
    };
    let caption = format!(
        "Inside a line alpha and beta lie together with that confidence: the objective with E, A and B fitted anew at each of {} \
         points, its rise judged by the spread of the residuals. A long slope says that the data hold a combination of the two \
         and not each. Dots are resamples of the runs.",
        contour.alpha.len() * contour.beta.len()
    );
    Some(Figure::single("exponents", "Exponents of the loss law", caption, plot, csv))
}

/// Axes around the outermost contour; around the whole grid where that does not close.
fn window(contour: &Contour) -> (Axis, Axis) {
    let outer = trace(contour, Contour::limit(LEVELS[LEVELS.len() - 1]));
    let (mut a, mut b): (Vec<f64>, Vec<f64>) = outer.into_iter().flatten().unzip();
    a.push(contour.best[0]);
    b.push(contour.best[1]);
    (
        Axis::around("alpha, exponent of parameters N", false, a.into_iter(), 0.12),
        Axis::around("beta, exponent of tokens D", false, b.into_iter(), 0.12),
    )
}
