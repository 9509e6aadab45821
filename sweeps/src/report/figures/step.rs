//! Where a step's time goes: for each size a bar for each kind of launch, measured and predicted.

use super::{Drawing, Figure, Toggle, View, cell};
use crate::report::chart::{Colour, Medium, WIDTH, Words, escape, head, texts};
use crate::report::input::{PartKind, ReportError, ReportInput, StepPart, StepTime};
use serde::Serialize;
use std::fmt::Write;

/// Bars drawn of a size; the rest is one bar.
const SHOWN: usize = 10;
/// Drawing units: a row's height with its label.
const ROW: f64 = 46.0;
const TOP: f64 = 24.0;

/// # Errors
/// For seconds that are none.
pub(crate) fn check(study: &ReportInput) -> Result<(), ReportError> {
    for step in &study.step_times {
        for part in &step.parts {
            let fields = [("measured time", Some(part.seconds)), ("predicted time", part.predicted)];
            for (field, found) in fields.into_iter().filter_map(|(f, v)| Some((f, v?))) {
                if !(found.is_finite() && found >= 0.0) {
                    let (size, label) = (step.size.clone(), part.label.clone());
                    return Err(ReportError::BadTime { size, label, field, found });
                }
            }
        }
    }
    Ok(())
}

/// A part with its shares of the step.
struct Share<'a> {
    part: &'a StepPart,
    measured: f64,
    predicted: Option<f64>,
}

fn total(step: &StepTime) -> f64 {
    step.parts.iter().map(|p| p.seconds).sum()
}

/// The predicted step; none where a part has no prediction.
fn total_predicted(step: &StepTime) -> Option<f64> {
    step.parts.iter().map(|p| p.predicted).sum()
}

/// The longest first.
fn shares(step: &StepTime) -> Vec<Share<'_>> {
    let (measured, predicted) = (total(step).max(1e-12), total_predicted(step).map(|t| t.max(1e-12)));
    let mut shares: Vec<Share> = step
        .parts
        .iter()
        .map(|part| Share {
            part,
            measured: part.seconds / measured,
            predicted: part.predicted.zip(predicted).map(|(p, t)| p / t),
        })
        .collect();
    shares.sort_by(|a, b| b.measured.total_cmp(&a.measured).then_with(|| a.part.label.cmp(&b.part.label)));
    shares
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// 1.23 ms, 45.6 us.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    match value {
        v if v >= 99.95 => format!("{v:.0} {unit}"),
        v if v >= 9.995 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

fn class(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Product => "product",
        PartKind::Attention => "attention",
        PartKind::Kernel => "kernel",
        PartKind::Movement => "movement",
    }
}

fn colour(kind: PartKind) -> Colour {
    match kind {
        PartKind::Product => Colour::Approach(3),
        PartKind::Attention => Colour::Approach(2),
        PartKind::Kernel => Colour::Approach(1),
        PartKind::Movement => Colour::Axis,
    }
}

/// The figure, one view for each size. None where nothing was measured.
pub(crate) fn figure(study: &ReportInput) -> Option<Figure> {
    let steps: Vec<&StepTime> = study.step_times.iter().filter(|s| total(s) > 0.0).collect();
    if steps.is_empty() {
        return None;
    }
    let drawing = |i, s| Drawing::Bars(Bars::of(i, s));
    let views =
        steps.iter().enumerate().map(|(i, s)| View { name: view(i), drawing: drawing(i, s) }).collect();
    let options = steps.iter().enumerate().map(|(i, s)| (view(i), s.size.clone())).collect();
    let toggles = match steps.len() {
        1 => Vec::new(),
        _ => vec![Toggle { name: "size", label: "size", options }],
    };
    let mut csv =
        String::from("size,part,launches,threads,seconds,share,predicted_seconds,predicted_share\n");
    for step in &steps {
        for s in shares(step) {
            let number = |v: Option<f64>| v.map(|v| v.to_string()).unwrap_or_default();
            let _ = writeln!(
                csv,
                "{},{},{},{},{},{},{},{}",
                cell(&step.size),
                cell(&s.part.label),
                s.part.launches,
                step.threads,
                s.part.seconds,
                s.measured,
                number(s.part.predicted),
                number(s.predicted)
            );
        }
    }
    Some(Figure {
        id: "step-time",
        title: "Where a step\u{2019}s time goes",
        caption: caption(&steps, &study.step_device),
        toggles,
        views,
        csv,
    })
}

fn view(i: usize) -> String {
    format!("step-{i}")
}

fn caption(steps: &[&StepTime], device: &str) -> String {
    let mut text = String::from(
        "Share of one optimiser step, each launch timed alone. Thick bars are measured: <b class=\"key product\">products</b>, \
         <b class=\"key attention\">attention</b>, <b class=\"key kernel\">generated kernels</b>, \
         <b class=\"key movement\">data movement</b>.",
    );
    let worst = steps
        .iter()
        .flat_map(|step| shares(step).into_iter().map(move |s| (step, s)))
        .filter_map(|(step, s)| Some((step, s.predicted? - s.measured, s)))
        .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    let Some((step, _, s)) = worst else {
        text.push_str(" There is no prediction to compare with.");
        return text;
    };
    let _ = write!(
        text,
        " Thin bars are what the cost model of <code>{}</code> expected. They differ most in size {}: {} takes {} of the step where {} \
         was expected.",
        escape(device),
        escape(&step.size),
        escape(&s.part.label),
        percent(s.measured),
        s.predicted.map(percent).unwrap_or_default()
    );
    text
}

/// The bars of one size: labels above their bars, so that it reads in a narrow column too.
#[derive(Debug)]
pub(crate) struct Bars {
    id: String,
    description: String,
    /// The whole step, measured and predicted.
    whole: String,
    bars: Vec<Bar>,
}

impl Bars {
    fn of(i: usize, step: &StepTime) -> Bars {
        let all = shares(step);
        let shown = if all.len() > SHOWN + 1 { SHOWN } else { all.len() };
        let mut bars: Vec<Bar> = all[..shown].iter().map(Bar::of).collect();
        if shown < all.len() {
            bars.push(Bar::rest(&all[shown..]));
        }
        let said: Vec<String> = bars.iter().map(|b| format!("{} {}", b.label, percent(b.measured))).collect();
        Bars {
            id: format!("step-time-plot-{i}"),
            description: format!("Shares of a step of size {}: {}", step.size, said.join(", ")),
            whole: match total_predicted(step) {
                Some(p) => format!("step {} · predicted {}", time(total(step)), time(p)),
                None => format!("step {}", time(total(step))),
            },
            bars,
        }
    }

    pub fn svg(&self, medium: Medium) -> String {
        let longest =
            self.bars.iter().map(|b| b.measured.max(b.predicted.unwrap_or(0.0))).fold(1e-9, f64::max);
        let mut out = head(medium, &self.id, TOP + ROW * self.bars.len() as f64, &self.description);
        let title = texts(medium, Words::AxisTitle);
        let _ = write!(out, r#"<text {title}x="4" y="15">{}</text>"#, escape(&self.whole));
        for (k, bar) in self.bars.iter().enumerate() {
            bar.draw(TOP + ROW * k as f64, longest, medium, &mut out);
        }
        out.push_str("</svg>");
        out
    }
}

#[derive(Debug)]
struct Bar {
    label: String,
    colour: Colour,
    measured: f64,
    predicted: Option<f64>,
    tip: String,
}

impl Bar {
    fn of(s: &Share<'_>) -> Bar {
        let launches =
            if s.part.launches == 1 { "1 launch".into() } else { format!("{} launches", s.part.launches) };
        let predicted = s.part.predicted.map(|p| format!(", predicted {}", time(p))).unwrap_or_default();
        Bar {
            label: s.part.label.clone(),
            colour: colour(s.part.kind),
            measured: s.measured,
            predicted: s.predicted,
            tip: format!("{}: {launches}, {}{predicted}", s.part.label, time(s.part.seconds)),
        }
    }

    fn rest(all: &[Share<'_>]) -> Bar {
        let names: Vec<&str> = all.iter().map(|s| s.part.label.as_str()).collect();
        Bar {
            label: format!("{} others", all.len()),
            colour: Colour::Line,
            measured: all.iter().map(|s| s.measured).sum(),
            predicted: all.iter().map(|s| s.predicted).sum(),
            tip: names.join(", "),
        }
    }

    fn draw(&self, top: f64, longest: f64, medium: Medium, out: &mut String) {
        let y = top + 17.0;
        let shares = match self.predicted {
            Some(p) => format!("{} · {}", percent(self.measured), percent(p)),
            None => percent(self.measured),
        };
        let words = texts(medium, Words::Tick);
        let _ = write!(out, r#"<text {words}x="4" y="{y}">{}</text>"#, escape(&self.label));
        let _ = write!(out, r#"<text {words}x="{}" y="{y}" text-anchor="end">{shares}</text>"#, WIDTH - 4.0);
        let tip = |text: &str| match medium {
            Medium::Page => format!("<title>{}</title>", escape(text)),
            Medium::Paper => String::new(),
        };
        let width = |share: f64| (WIDTH - 8.0) * share / longest;
        let _ = write!(
            out,
            r#"<rect class="mark share" fill="{}" x="4" y="{}" width="{:.1}" height="10">{}</rect>"#,
            self.colour.value(medium),
            y + 6.0,
            width(self.measured),
            tip(&self.tip)
        );
        if let Some(p) = self.predicted {
            let _ = write!(
                out,
                r#"<rect class="mark expected" fill="{}" fill-opacity="0.55" x="4" y="{}" width="{:.1}" height="4">{}</rect>"#,
                Colour::Ink.value(medium),
                y + 18.0,
                width(p),
                tip(&format!("{}: predicted {} of the step", self.label, percent(p)))
            );
        }
    }
}

/// One row of the table below the figures.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub size: String,
    pub label: String,
    pub class: &'static str,
    /// Text and what it is sorted by.
    pub cells: Vec<(String, String)>,
}

/// Every part of every size.
pub(crate) fn rows(study: &ReportInput) -> Vec<Row> {
    let mut rows = Vec::new();
    for step in study.step_times.iter().filter(|s| total(s) > 0.0) {
        for s in shares(step) {
            let number = |v: Option<f64>, show: fn(f64) -> String| match v {
                Some(v) => (show(v), v.to_string()),
                None => ("\u{2013}".to_owned(), String::new()),
            };
            let ratio = s.part.predicted.map(|p| s.part.seconds / p.max(1e-12));
            rows.push(Row {
                size: step.size.clone(),
                label: s.part.label.clone(),
                class: class(s.part.kind),
                cells: vec![
                    (s.part.launches.to_string(), s.part.launches.to_string()),
                    number(Some(s.part.seconds), time),
                    number(s.part.predicted, time),
                    number(ratio, |r| format!("{r:.2}")),
                    number(Some(s.measured), percent),
                    number(s.predicted, percent),
                ],
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(label: &str, kind: PartKind, seconds: f64, predicted: Option<f64>) -> StepPart {
        StepPart { label: label.into(), kind, launches: 2, seconds, predicted }
    }

    fn study() -> ReportInput {
        let parts = vec![
            part("product ff1", PartKind::Product, 9e-3, Some(3e-3)),
            part("attention", PartKind::Attention, 0.5e-3, Some(1e-3)),
            part("kernel gelu", PartKind::Kernel, 0.5e-3, Some(1e-3)),
        ];
        let step = StepTime { size: "21k".into(), runs: 1, threads: 1, parts };
        ReportInput { step_times: vec![step], step_device: "cpu".into(), ..Default::default() }
    }

    #[test]
    fn the_caption_names_the_largest_disagreement() {
        let text = figure(&study()).unwrap().caption;
        assert!(text.contains("in size 21k: product ff1 takes 90.0 % of the step where 60.0 %"), "{text}");
        let mut without = study();
        without.step_times[0].parts[1].predicted = None;
        assert!(figure(&without).unwrap().caption.contains("no prediction"));
        assert!(figure(&ReportInput::default()).is_none());
    }

    #[test]
    fn what_is_not_shown_is_summed() {
        let mut study = study();
        study.step_times[0].parts =
            (0..30).map(|i| part(&format!("kernel {i}"), PartKind::Kernel, 1e-3, Some(1e-3))).collect();
        let svg = figure(&study).unwrap().views[0].drawing.svg(Medium::Page);
        assert_eq!(svg.matches("<rect class=\"mark share").count(), SHOWN + 1);
        assert!(svg.contains("20 others") && svg.contains("66.7 % · 66.7 %"), "{svg}");
        assert_eq!(rows(&study).len(), 30);
    }

    #[test]
    fn times_have_three_digits_or_so() {
        assert_eq!([2.5, 1.5e-3, 0.2, 45.6e-6].map(time), ["2.50 s", "1.50 ms", "200 ms", "45.6 µs"]);
    }
}
