//! The compute-optimal model at the largest target by every resample: how far N*, D* and the loss may be off together.

use super::laws::fits;
use super::{Drawing, Figure, Toggle, View};
use crate::fit::{Estimate, Fit, FitReport, Optimum, Params, format_count, format_flops};
use crate::report::chart::{Axis, Colour, EndLabel, Key, Mark, Plot, Shape};
use crate::report::words::{around, html, power};
use std::fmt::Write;

/// Resamples drawn, at most.
const DRAWS: usize = 400;

/// The optimum of one resample, with its loss.
struct Draw {
    params: f64,
    tokens: f64,
    loss: f64,
}

/// None without resamples of approach 3.
pub(crate) fn figure(report: &FitReport) -> Option<Figure> {
    let third = fits(report).find(|f| f.approach == 3)?;
    let most = report.inputs.flops[1];
    let flops = report.inputs.targets.iter().copied().reduce(f64::max).unwrap_or(10.0 * most);
    let draws = draws(third, flops, report.inputs.flops_per_param_token);
    if draws.is_empty() {
        return None;
    }
    let at = |f: &'_ Fit| f.optimum.iter().find(|o| (o.flops / flops - 1.0).abs() < 1e-9).cloned();
    let optima: Vec<(u8, Optimum)> = fits(report).filter_map(|f| Some((f.approach, at(f)?))).collect();
    let best = optima.iter().find(|(approach, _)| *approach == 3).map(|(_, o)| o)?;
    let loss = best.loss.as_ref()?;
    let mut csv = String::from(
        "what,approach,flops,params,params_low,params_high,tokens,tokens_low,tokens_high,nats_per_token\n",
    );
    let end = |e: &Estimate, i: usize| e.interval.map(|ends| ends[i].to_string()).unwrap_or_default();
    for (approach, o) in &optima {
        let loss = o.loss.map(|l| l.value.to_string()).unwrap_or_default();
        let [n, d] = [&o.params, &o.tokens].map(|e| format!("{},{},{}", e.value, end(e, 0), end(e, 1)));
        let _ = writeln!(csv, "optimum,{approach},{flops:e},{n},{d},{loss}");
    }
    for d in &draws {
        let _ = writeln!(csv, "resample,3,{flops:e},{},,,{},,,{}", d.params, d.tokens, d.loss);
    }
    let caption = format!(
        "The compute-optimal model for {} FLOPs. Each dot is a resample of the runs by approach 3; bars are the intervals of each \
         approach. Against tokens the dots lie on a line, N times D being fixed. Against loss they show how size and loss are \
         uncertain together.",
        html(&power(flops))
    );
    let views =
        [("tokens", tokens(flops, &draws, &optima)), ("loss", losses(flops, &draws, &best.params, loss))];
    Some(Figure {
        id: "cloud",
        title: "Optimal models by resample",
        caption,
        toggles: vec![Toggle::new("against", "against", &[("tokens", "tokens"), ("loss", "loss")])],
        views: views
            .map(|(name, plot)| View { name: name.into(), drawing: Drawing::Plot(Box::new(plot)) })
            .into(),
        csv,
    })
}

/// Evenly chosen resamples.
fn draws(fit: &Fit, flops: f64, flops_per_param_token: f64) -> Vec<Draw> {
    let every = fit.cloud.draws.len().div_ceil(DRAWS).max(1);
    let one = |law: &Params| {
        let (params, tokens) = law.optimum(flops, flops_per_param_token)?;
        Some(Draw { params, tokens, loss: law.loss(params, tokens)? })
    };
    let sound = |d: &Draw| [d.params, d.tokens, d.loss].iter().all(|v| v.is_finite() && *v > 0.0);
    fit.cloud.draws.iter().step_by(every).filter_map(one).filter(sound).collect()
}

fn resample(x: f64, y: f64, tip: String) -> Mark {
    let (shape, colour) = (Shape::Circle, Colour::Muted);
    Mark::Dot { x, y, shape, size: 2.2, colour, hollow: false, class: "draw", tip }
}

/// Bars of the intervals of x and y around a point, and their ends.
fn bars(x: &Estimate, y: &Estimate, colour: Colour, marks: &mut Vec<Mark>, tip: &str) -> Vec<(f64, f64)> {
    let mut ends = vec![(x.value, y.value)];
    if let Some([low, high]) = x.interval {
        let tip = tip.to_owned();
        marks.push(Mark::Interval { at: y.value, low, high, across: true, colour, tip });
        ends.extend([(low, y.value), (high, y.value)]);
    }
    if let Some([low, high]) = y.interval {
        let tip = tip.to_owned();
        marks.push(Mark::Interval { at: x.value, low, high, across: false, colour, tip });
        ends.extend([(x.value, low), (x.value, high)]);
    }
    ends
}

/// N* and D*, by all approaches.
fn tokens(flops: f64, draws: &[Draw], optima: &[(u8, Optimum)]) -> Plot {
    let at = format_flops(flops);
    let mut marks = Vec::new();
    let mut points = Vec::new();
    for d in draws {
        let (n, t) = (format_count(d.params), format_count(d.tokens));
        marks.push(resample(d.params, d.tokens, format!("a resample: N = {n}, D = {t}")));
        points.push((d.params, d.tokens));
    }
    let shapes = [Shape::Square, Shape::Circle, Shape::Diamond];
    let shape = |approach: u8| shapes[usize::from(approach.clamp(1, 3) - 1)];
    for (approach, o) in optima {
        let tip = format!(
            "approach {approach} at {at} FLOPs: N = {}{}, D = {}{}",
            format_count(o.params.value),
            around(o.params.interval.as_ref(), &format_count),
            format_count(o.tokens.value),
            around(o.tokens.interval.as_ref(), &format_count)
        );
        let colour = Colour::Approach(*approach);
        points.extend(bars(&o.params, &o.tokens, colour, &mut marks, &tip));
        marks.push(Mark::dot((o.params.value, o.tokens.value), shape(*approach), 5.5, colour, tip));
    }
    let y = Axis::around("compute-optimal tokens D", true, points.iter().map(|p| p.1), 0.06);
    let label = |(i, (approach, _)): (usize, &(u8, Optimum))| {
        let label = EndLabel::new(Plot::row(&y, i, 4), approach.to_string(), Colour::Approach(*approach));
        label.keyed(Key::Full(shape(*approach)))
    };
    let mut labels: Vec<EndLabel> = optima.iter().enumerate().map(label).collect();
    labels.push(EndLabel::new(Plot::row(&y, optima.len(), 4), "resample".into(), Colour::Muted));
    Plot {
        id: "cloud-tokens-plot".into(),
        description: format!(
            "Optimal tokens against optimal parameters at {at} FLOPs by {} resamples.",
            draws.len()
        ),
        x: Axis::around("compute-optimal parameters N", true, points.iter().map(|p| p.0), 0.06),
        y,
        marks,
        labels: vec![labels],
        label_title: "approach".into(),
    }
}

/// N* and the loss, by approach 3.
fn losses(flops: f64, draws: &[Draw], params: &Estimate, loss: &Estimate) -> Plot {
    let at = format_flops(flops);
    let mut marks = Vec::new();
    let mut points = Vec::new();
    for d in draws {
        let n = format_count(d.params);
        marks.push(resample(
            d.params,
            d.loss,
            format!("a resample: N = {n}, loss {:.3} nats per token", d.loss),
        ));
        points.push((d.params, d.loss));
    }
    let tip = format!(
        "approach 3 at {at} FLOPs: N = {}{}, loss {:.3}{} nats per token",
        format_count(params.value),
        around(params.interval.as_ref(), &format_count),
        loss.value,
        around(loss.interval.as_ref(), &|v| format!("{v:.3}"))
    );
    let colour = Colour::Approach(3);
    points.extend(bars(params, loss, colour, &mut marks, &tip));
    marks.push(Mark::dot((params.value, loss.value), Shape::Diamond, 6.0, colour, tip));
    Plot {
        id: "cloud-loss-plot".into(),
        description: format!(
            "Predicted loss against optimal parameters at {at} FLOPs by {} resamples.",
            draws.len()
        ),
        x: Axis::around("compute-optimal parameters N", true, points.iter().map(|p| p.0), 0.05),
        y: Axis::around("loss (nats per token)", false, points.iter().map(|p| p.1), 0.06),
        marks,
        labels: Vec::new(),
        label_title: format!("at {} FLOPs", power(flops)),
    }
}
