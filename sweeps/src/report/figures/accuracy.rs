//! Accuracy of a task against its loss, with the sigmoid, and against compute, with both steps at the optimum.

use super::residuals::Sizes;
use super::{Drawing, Figure, MOST_DOTS, Toggle, View, cell};
use crate::fit::{Downstream, DownstreamPoint, Estimate, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape};
use crate::report::words::{around, html};
use std::fmt::Write;

const AXIS: &str = "accuracy";

/// None without a curve.
pub(crate) fn figure(task: &Downstream) -> Option<Figure> {
    if task.curve.is_empty() {
        return None;
    }
    let every = task.points.len().div_ceil(MOST_DOTS).max(1);
    let drawn: Vec<&DownstreamPoint> = task.points.iter().step_by(every).collect();
    let mut csv = String::from("what,run,params,tokens,flops,loss,accuracy,low,high\n");
    for p in &drawn {
        let (run, flops) = (cell(&p.run), p.flops);
        let _ = writeln!(csv, "run,{run},{},{},{flops:e},{},{},,", p.params, p.tokens, p.loss, p.accuracy);
    }
    let ends = |e: &Estimate| e.interval.map(|[low, high]| format!("{low},{high}")).unwrap_or(",".into());
    for p in &task.curve {
        let _ = writeln!(csv, "sigmoid,,,,,{},{},{}", p.loss, p.accuracy.value, ends(&p.accuracy));
    }
    for o in &task.optimum {
        let (loss, accuracy) = (o.loss.value, &o.accuracy);
        let _ = writeln!(
            csv,
            "both steps,,{},{},{:e},{loss},{},{}",
            o.params,
            o.tokens,
            o.flops,
            accuracy.value,
            ends(accuracy)
        );
    }
    let name = task.group.as_deref().unwrap_or("the task");
    let by_loss: Vec<(f64, Estimate)> = task.curve.iter().map(|p| (p.loss, p.accuracy)).collect();
    let by_compute: Vec<(f64, Estimate)> = task.optimum.iter().map(|o| (o.flops, o.accuracy)).collect();
    let shown = Shown { name, drawn: &drawn };
    let mut views = vec![("loss", shown.plot("loss", "loss of the task", false, &|p| p.loss, &by_loss))];
    let mut toggles = Vec::new();
    if !by_compute.is_empty() {
        let compute = "training compute C (FLOPs)";
        let mut plot = shown.plot("compute", compute, true, &|p| p.flops, &by_compute);
        if let Some(most) = drawn.iter().map(|p| p.flops).max_by(f64::total_cmp) {
            plot.marks.insert(0, Mark::Beyond { x: most, text: "beyond the data".into(), top: false });
        }
        views.push(("compute", plot));
        toggles.push(Toggle::new("against", "against", &[("loss", "loss"), ("compute", "compute")]));
    }
    let views = views
        .into_iter()
        .map(|(name, plot)| View { name: name.into(), drawing: Drawing::Plot(Box::new(plot)) });
    Some(Figure {
        id: "accuracy",
        title: "Accuracy in two steps",
        caption: caption(task, name, drawn.len()),
        toggles,
        views: views.collect(),
        csv,
    })
}

fn caption(task: &Downstream, name: &str, drawn: usize) -> String {
    let s = &task.sigmoid;
    let mut text = format!(
        "Accuracy of {} of {} runs. Against its loss: the sigmoid {:.3} + {:.3} / (1 + exp({:.2} (L \u{2212} {:.3}))), which misses by {:.3}. \
         Against compute: the loss law at its optimum, through the sigmoid.",
        html(name),
        task.n,
        s.floor,
        s.ceiling - s.floor,
        s.k,
        s.midpoint,
        task.residual
    );
    if let Some(b) = task.bootstrap {
        let _ = write!(text, " Bands are {:.0} % intervals of both.", 100.0 * b.level);
    }
    if let Some(h) = &task.held_out {
        let _ = write!(
            text,
            " Fitted without the {} largest runs, both steps miss them by {:.3}; the nearest smaller run by {:.3}.",
            h.n, h.error, h.baseline_error
        );
    }
    if drawn > 0 && drawn < task.n {
        let _ = write!(text, " {drawn} of {} runs are drawn, evenly chosen.", task.n);
    }
    text
}

struct Shown<'a> {
    name: &'a str,
    drawn: &'a [&'a DownstreamPoint],
}

impl Shown<'_> {
    fn plot(
        &self,
        id: &str,
        axis: &str,
        log: bool,
        x: &dyn Fn(&DownstreamPoint) -> f64,
        law: &[(f64, Estimate)],
    ) -> Plot {
        let share = |v: f64| format!("{v:.3}");
        let at = |x: f64| if log { format!("{} FLOPs", format_flops(x)) } else { format!("loss {x:.3}") };
        let band = law.iter().filter_map(|(x, e)| e.interval.map(|[low, high]| (*x, low, high)));
        let line: Vec<(f64, f64)> = law.iter().map(|(x, e)| (*x, e.value)).collect();
        let what = if log { "both steps at the optimum" } else { "sigmoid" };
        let mut marks = vec![
            Mark::Band {
                points: band.collect(),
                colour: Colour::Approach(3),
                tip: format!("interval of the {what}"),
            },
            Mark::law(line, 3, what.into()),
        ];
        for (x, e) in law {
            let tip = format!("{what} at {}: {:.3}{}", at(*x), e.value, around(e.interval.as_ref(), &share));
            marks.push(Mark::Value { x: *x, y: e.value, tip });
        }
        let sizes = Sizes::of(self.drawn.iter().map(|p| p.params));
        for p in self.drawn {
            let tip = format!(
                "{}: {} parameters, {} FLOPs: loss {:.3}, accuracy {:.3}",
                p.run,
                format_count(p.params),
                format_flops(p.flops),
                p.loss,
                p.accuracy
            );
            marks.push(Mark::dot((x(p), p.accuracy), Shape::Circle, 4.0, sizes.colour(p.params), tip));
        }
        let of_law = law.iter().flat_map(|(_, e)| e.interval.unwrap_or([e.value; 2]));
        let values = self.drawn.iter().map(|p| p.accuracy).chain(of_law);
        let y = Axis::around(AXIS, false, values, 0.06);
        let named = sizes.named.iter().enumerate().map(|(i, &n)| {
            EndLabel::new(Plot::row(&y, i, sizes.named.len()), format_count(n), sizes.colour(n))
        });
        let labels = vec![named.collect()];
        let places = law.iter().map(|(x, _)| *x).chain(self.drawn.iter().map(|p| x(p)));
        Plot {
            id: format!("accuracy-{id}"),
            description: format!("Accuracy of {} against {axis} of {} runs.", self.name, self.drawn.len()),
            x: Axis::around(axis, log, places, 0.03),
            y,
            marks,
            labels,
            label_title: if self.drawn.is_empty() { String::new() } else { "parameters N".into() },
        }
    }
}
