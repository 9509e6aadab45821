//! Final losses, the envelope of the training curves and the loss law against compute.

use super::laws::{COMPUTE, beyond, fits};
use super::{Figure, cell, finished, size_name, thinned_note};
use crate::fit::{Estimate, Fit, FitReport, Optimum, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Mark, Plot, Shape};
use crate::report::input::ReportInput;
use crate::report::words::around;
use std::fmt::Write;

const UNIT: &str = "nats per token";

/// What the figure gathers.
#[derive(Default)]
struct Gathered {
    marks: Vec<Mark>,
    labels: Vec<EndLabel>,
    points: Vec<(f64, f64)>,
    csv: String,
}

/// None without finished runs and without a loss law.
pub(crate) fn figure(input: &ReportInput) -> Option<Figure> {
    let finished = finished(input);
    let mut all = Gathered { csv: "what,flops,nats_per_token,low,high\n".into(), ..Gathered::default() };
    let mut said = Vec::new();
    if !finished.is_empty() {
        said.push("each dot is a finished run");
        all.points.extend(finished.iter().map(|(r, l)| (r.flops, *l)));
    }
    if let Some(report) = &input.fit {
        if let Some(fit) = fits(report).find(|f| f.approach == 3) {
            all.law(report, fit);
            said.push("the line is the loss law at its optimum, the band its interval");
        }
        if let Some(fit) = report.approach(1) {
            all.envelope(fit);
            said.push("the dashed line is the lower envelope of the training curves");
        }
    }
    for (run, loss) in &finished {
        let tip = format!(
            "{}: {} parameters, {} FLOPs: {loss:.3} {UNIT}",
            run.id,
            size_name(run),
            format_flops(run.flops)
        );
        all.marks.push(Mark::dot((run.flops, *loss), Shape::Circle, 3.6, Colour::Axis, tip));
        let _ = writeln!(all.csv, "{},{:e},{loss},,", cell(&run.id), run.flops);
    }
    if all.points.is_empty() {
        return None;
    }
    let plot = Plot {
        id: "loss-plot".into(),
        description: format!(
            "Final loss against training compute for {} runs, with the fitted law.",
            finished.len()
        ),
        x: Axis::around(COMPUTE, true, all.points.iter().map(|p| p.0), 0.03),
        y: Axis::around("loss (nats per token)", true, all.points.iter().map(|p| p.1), 0.05),
        marks: all.marks,
        labels: vec![all.labels],
        label_title: String::new(),
    };
    let mut caption = said.join("; ") + ".";
    caption[..1].make_ascii_uppercase();
    caption.push_str(&thinned_note(input, finished.len()));
    Some(Figure::single("loss", "Loss against compute", caption, plot, all.csv))
}

impl Gathered {
    fn law(&mut self, report: &FitReport, fit: &Fit) {
        let known: Vec<(&Optimum, &Estimate)> =
            fit.optimum.iter().filter_map(|o| Some((o, o.loss.as_ref()?))).collect();
        let band = known.iter().filter_map(|(o, l)| l.interval.map(|[low, high]| (o.flops, low, high)));
        let points: Vec<_> = known.iter().map(|(o, l)| (o.flops, l.value)).collect();
        self.marks.push(beyond(report, true));
        self.marks.push(Mark::Band {
            points: band.collect(),
            colour: Colour::Approach(3),
            tip: "interval of the compute-optimal loss, approach 3".into(),
        });
        self.marks.push(Mark::law(points.clone(), 3, "loss of the compute-optimal model, approach 3".into()));
        for (o, l) in &known {
            let tip = format!(
                "approach 3 at {} FLOPs: {:.3}{} {UNIT}",
                format_flops(o.flops),
                l.value,
                around(l.interval.as_ref(), &|v| format!("{v:.3}"))
            );
            self.marks.push(Mark::Value { x: o.flops, y: l.value, tip });
            let [low, high] = l.interval.unwrap_or([l.value; 2]);
            let _ = writeln!(self.csv, "loss law,{:e},{},{low},{high}", o.flops, l.value);
        }
        if let Some(last) = points.last() {
            self.labels.push(EndLabel::new(last.1, "loss law".into(), Colour::Approach(3)));
        }
        self.points.extend(points);
    }

    fn envelope(&mut self, fit: &Fit) {
        let used: Vec<_> = fit.envelope.iter().filter(|p| p.interior).collect();
        let points: Vec<_> = used.iter().map(|p| (p.flops, p.loss)).collect();
        for p in &used {
            let _ = writeln!(self.csv, "envelope,{:e},{},,", p.flops, p.loss);
        }
        if let Some(last) = points.last() {
            self.labels.push(EndLabel::new(last.1, "envelope".into(), Colour::Approach(1)));
        }
        let tip = "lower envelope of the training curves, approach 1".into();
        self.marks.push(Mark::law(points.clone(), 1, tip));
        // Hover values at some of its many points.
        for p in used.iter().step_by(used.len().div_ceil(30).max(1)) {
            let tip =
                format!("envelope at {} FLOPs: {:.3} {UNIT}, of {}", format_flops(p.flops), p.loss, p.run);
            self.marks.push(Mark::Value { x: p.flops, y: p.loss, tip });
        }
        self.points.extend(points);
    }
}
