//! Draws a plot as SVG: every mark placed, coloured by presentation attributes, labelled and escaped.
//!
//! In the page colours are its variables and text sizes come from its style sheet, so that one drawing serves light and
//! dark, wide and narrow. On paper everything is written out.

use super::palette::{Colour, Medium};
use super::plot::{EndLabel, Key, Mark, Plot, Shape, Stroke};
use super::text::{escape, pieces, rich};
use std::fmt::Write;

/// Drawing units of every plot; the page scales them to its columns.
pub(crate) const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 400.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 64.0;
const LEFT: f64 = 60.0;
/// Room right of a plot without labels; with them, least room, and what a label takes besides its letters.
const RIGHT_BARE: f64 = 16.0;
const RIGHT: f64 = 84.0;
const KEY: f64 = 22.0;
/// Width of a letter of the narrow layout's and the paper's text.
const LETTER: f64 = 10.0;
/// Least distance of two labels in the margin: the line height of the narrow layout's text.
const LINE: f64 = 20.0;
/// Width of a drawing on paper, in millimetres: one of two columns.
const PAPER: f64 = 84.0;
/// Text on paper, in drawing units: 7 points at that width.
const PAPER_TEXT: f64 = 16.5;
const PAPER_FONTS: &str = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// What kind of text; the page's style sheet knows these as classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Tick,
    AxisTitle,
    Note,
    Label,
}

/// Attributes of text: classes for the page, sizes and colours on paper.
pub(crate) fn texts(medium: Medium, words: Words) -> String {
    let (class, colour) = match words {
        Words::Tick => ("", Colour::Muted),
        Words::AxisTitle => ("axis-title", Colour::Ink),
        Words::Note => ("note", Colour::Muted),
        Words::Label => ("label", Colour::Ink),
    };
    match medium {
        Medium::Page if class.is_empty() => String::new(),
        Medium::Page => format!(r#"class="{class}" "#),
        Medium::Paper => {
            // The page's style sheet makes notes a little smaller too.
            let size = if words == Words::Note { PAPER_TEXT - 1.0 } else { PAPER_TEXT };
            format!(r#"font-size="{size}" fill="{}" "#, colour.value(medium))
        }
    }
}

/// The opening tag of a drawing of this height, and on paper a white ground.
pub(crate) fn head(medium: Medium, id: &str, height: f64, description: &str) -> String {
    let (id, description) = (escape(id), escape(description));
    let open = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" id="{id}" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{description}""#
    );
    match medium {
        Medium::Page => open + ">",
        Medium::Paper => format!(
            r#"{open} width="{PAPER}mm" height="{:.3}mm" font-family="{PAPER_FONTS}"><title>{description}</title><rect width="{WIDTH}" height="{height}" fill="{}"/>"#,
            PAPER * height / WIDTH,
            Colour::Card.value(medium)
        ),
    }
}

/// The numbers of a drawing, placed.
struct Frame<'a> {
    plot: &'a Plot,
    medium: Medium,
    right: f64,
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        (LEFT + self.plot.x.share(value) * (self.right - LEFT)).clamp(-1e4, 1e4)
    }

    fn y(&self, value: f64) -> f64 {
        (HEIGHT - BOTTOM - self.plot.y.share(value) * (HEIGHT - BOTTOM - TOP)).clamp(-1e4, 1e4)
    }

    fn colour(&self, colour: Colour) -> String {
        colour.value(self.medium)
    }

    fn tip(&self, text: &str) -> String {
        match (text, self.medium) {
            ("", _) | (_, Medium::Paper) => String::new(),
            (text, Medium::Page) => format!("<title>{}</title>", escape(text)),
        }
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut d = String::new();
        for (x, y) in points.filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let _ = write!(d, "{}{:.1} {:.1}", if d.is_empty() { 'M' } else { 'L' }, self.x(x), self.y(y));
        }
        d
    }

    fn stroked(&self, colour: Colour, stroke: Stroke) -> String {
        let Stroke { width, dash, opacity } = stroke;
        let mut out = format!(
            r#"fill="none" stroke="{}" stroke-width="{width}" stroke-linejoin="round" stroke-linecap="round""#,
            self.colour(colour)
        );
        if !dash.is_empty() {
            let _ = write!(out, r#" stroke-dasharray="{dash}""#);
        }
        if opacity < 1.0 {
            let _ = write!(out, r#" opacity="{opacity}""#);
        }
        out
    }

    fn axes(&self, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, self.right);
        let (words, title) = (texts(self.medium, Words::Tick), texts(self.medium, Words::AxisTitle));
        let (grid, axis) = (self.colour(Colour::Grid), self.colour(Colour::Axis));
        out.push_str(r#"<g class="axes">"#);
        for tick in self.plot.y.ticks() {
            let y = self.y(tick.at);
            if let Some(text) = tick.text {
                let _ = write!(out, r#"<path fill="none" stroke="{grid}" d="M{LEFT} {y:.1}H{right}"/>"#);
                let _ = write!(
                    out,
                    r#"<text {words}x="{:.1}" y="{y:.1}" dy="0.34em" text-anchor="end">{}</text>"#,
                    LEFT - 8.0,
                    rich(&text)
                );
            }
        }
        for tick in self.plot.x.ticks() {
            let x = self.x(tick.at);
            let length = if tick.text.is_some() { 7.0 } else { 4.0 };
            let _ = write!(out, r#"<path fill="none" stroke="{axis}" d="M{x:.1} {bottom}v{length}"/>"#);
            if let Some(text) = tick.text {
                let _ = write!(
                    out,
                    r#"<text {words}x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                    bottom + 25.0,
                    rich(&text)
                );
            }
        }
        let _ = write!(out, r#"<path fill="none" stroke="{axis}" d="M{LEFT} {bottom}H{right}"/>"#);
        let _ = write!(
            out,
            r#"<text {title}x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            0.5 * (LEFT + right),
            HEIGHT - 10.0,
            rich(&self.plot.x.title)
        );
        let _ = write!(out, r#"<text {title}x="4" y="18">{}</text></g>"#, rich(&self.plot.y.title));
    }

    fn mark(&self, mark: &Mark, out: &mut String) {
        let _ = match mark {
            Mark::Line { points, colour, stroke, class, tip } => write!(
                out,
                r#"<path class="mark line {class}" {}{} d="{}">{}</path>"#,
                self.stroked(*colour, *stroke),
                colour.choice(self.medium),
                self.path(points.iter().copied()),
                self.tip(tip)
            ),
            Mark::Band { points, colour, tip } => {
                let there = points.iter().map(|p| (p.0, p.1));
                let back = points.iter().rev().map(|p| (p.0, p.2));
                write!(
                    out,
                    r#"<path class="mark band" fill="{}" fill-opacity="0.15" d="{}Z">{}</path>"#,
                    self.colour(*colour),
                    self.path(there.chain(back)),
                    self.tip(tip)
                )
            }
            Mark::Dot { .. } => {
                self.dot(mark, out);
                Ok(())
            }
            Mark::Value { x, y, tip } if self.medium == Medium::Page => write!(
                out,
                r#"<circle class="mark value" fill="transparent" cx="{:.1}" cy="{:.1}" r="7">{}</circle>"#,
                self.x(*x),
                self.y(*y),
                self.tip(tip)
            ),
            Mark::Value { .. } => Ok(()),
            Mark::Interval { at, low, high, across, colour, tip } => {
                let stroke = self.stroked(*colour, Stroke { width: 1.8, ..Stroke::PLAIN });
                let d = if *across {
                    let (y, a, b) = (self.y(*at), self.x(*low), self.x(*high));
                    format!("M{a:.1} {y:.1}H{b:.1}m0 -4v8M{a:.1} {:.1}v8", y - 4.0)
                } else {
                    let (x, a, b) = (self.x(*at), self.y(*low), self.y(*high));
                    format!("M{x:.1} {a:.1}V{b:.1}m-4 0h8M{:.1} {a:.1}h8", x - 4.0)
                };
                write!(out, r#"<path class="mark interval" {stroke} d="{d}">{}</path>"#, self.tip(tip))
            }
            Mark::Word { x, y, text } => {
                let (x, y) = (self.x(*x), self.y(*y));
                let right = x > 0.5 * (LEFT + self.right);
                let (x, anchor) = if right { (x - 8.0, "end") } else { (x + 8.0, "start") };
                write!(
                    out,
                    r#"<text {}x="{x:.1}" y="{y:.1}" dy="0.34em" text-anchor="{anchor}">{}</text>"#,
                    texts(self.medium, Words::Note),
                    rich(text)
                )
            }
            Mark::Beyond { x, text, top } => self.beyond(self.x(*x), text, *top, out),
        };
    }

    fn beyond(&self, x: f64, text: &str, top: bool, out: &mut String) -> std::fmt::Result {
        let bottom = HEIGHT - BOTTOM;
        write!(
            out,
            r#"<rect fill="{}" fill-opacity="0.04" x="{x:.1}" y="{TOP}" width="{:.1}" height="{:.1}"/>"#,
            self.colour(Colour::Ink),
            (self.right - x).max(0.0),
            bottom - TOP
        )?;
        write!(
            out,
            r#"<text {}x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            texts(self.medium, Words::Note),
            self.right - 8.0,
            if top { TOP + 20.0 } else { bottom - 12.0 },
            escape(text)
        )
    }

    fn dot(&self, mark: &Mark, out: &mut String) {
        let Mark::Dot { x, y, shape, size, colour, hollow, class, tip } = mark else { return };
        let (cx, cy, r) = (self.x(*x), self.y(*y), *size);
        if !(cx.is_finite() && cy.is_finite()) {
            return;
        }
        let value = self.colour(*colour);
        let paint = match (*hollow || *shape == Shape::Cross, r > 2.5) {
            (true, _) => format!(r#"fill="none" stroke="{value}" stroke-width="2.2""#),
            (_, true) => format!(r#"fill="{value}" stroke="{}" stroke-width="1""#, self.colour(Colour::Card)),
            // Rims would hide what lies under a crowd of small dots.
            (_, false) => format!(r#"fill="{value}" fill-opacity="0.55""#),
        };
        let attributes = format!(r#"class="mark dot {class}" {paint}{}"#, colour.choice(self.medium));
        shape_of(*shape, &attributes, (cx, cy, r), &self.tip(tip), out);
    }

    fn end_labels(&self, out: &mut String) {
        let x = self.right + 8.0;
        if !self.plot.label_title.is_empty() {
            let _ = write!(
                out,
                r#"<text {}x="{}" y="18" text-anchor="end">{}</text>"#,
                texts(self.medium, Words::Note),
                WIDTH - 3.0,
                rich(&self.plot.label_title)
            );
        }
        // On paper there is nobody to choose between groups: the first is shown.
        let shown = if self.medium == Medium::Paper { 1 } else { usize::MAX };
        for group in self.plot.labels.iter().take(shown) {
            let mut placed: Vec<(f64, &EndLabel)> =
                group.iter().map(|l| (self.y(l.y), l)).filter(|(y, _)| y.is_finite()).collect();
            placed.sort_by(|a, b| a.0.total_cmp(&b.0));
            spread(&mut placed, TOP + 6.0, HEIGHT - BOTTOM);
            for (y, label) in placed {
                let EndLabel { text, class, colour, key, .. } = label;
                let _ = write!(out, r#"<g class="end {class}"{}>"#, colour.choice(self.medium));
                let value = self.colour(*colour);
                match key {
                    Key::Line(stroke) => {
                        let paint = self.stroked(*colour, *stroke);
                        let _ = write!(out, r#"<path {paint} d="M{:.1} {y:.1}h14"/>"#, x - 4.0);
                    }
                    Key::Full(shape) if *shape != Shape::Cross => {
                        let paint = format!(r#"fill="{value}""#);
                        shape_of(*shape, &paint, (x + 4.0, y, 4.0), "", out);
                    }
                    Key::Full(shape) | Key::Hollow(shape) => {
                        let paint = format!(r#"fill="none" stroke="{value}" stroke-width="2.2""#);
                        shape_of(*shape, &paint, (x + 4.0, y, 4.0), "", out);
                    }
                }
                let _ = write!(
                    out,
                    r#"<text {}x="{:.1}" y="{y:.1}" dy="0.34em">{}</text></g>"#,
                    texts(self.medium, Words::Label),
                    x + 13.0,
                    rich(text)
                );
            }
        }
    }
}

/// One element of this form around (x, y), `r` its radius or half its width.
fn shape_of(shape: Shape, attributes: &str, (x, y, r): (f64, f64, f64), inside: &str, out: &mut String) {
    let _ = match shape {
        Shape::Circle => {
            write!(out, r#"<circle {attributes} cx="{x:.1}" cy="{y:.1}" r="{r}">{inside}</circle>"#)
        }
        Shape::Square => write!(
            out,
            r#"<rect {attributes} x="{:.1}" y="{:.1}" width="{w}" height="{w}">{inside}</rect>"#,
            x - 0.9 * r,
            y - 0.9 * r,
            w = 1.8 * r
        ),
        Shape::Diamond => write!(
            out,
            r#"<path {attributes} d="M{x:.1} {:.1}l{q} {q}l-{q} {q}l-{q} -{q}z">{inside}</path>"#,
            y - 1.3 * r,
            q = 1.3 * r
        ),
        Shape::Cross => write!(
            out,
            r#"<path {attributes} d="M{:.1} {:.1}l{w} {w}m0 -{w}l-{w} {w}">{inside}</path>"#,
            x - r,
            y - r,
            w = 2.0 * r
        ),
    };
}

/// Moves labels, sorted by height, so that they are a line apart and within the limits where they fit.
fn spread(placed: &mut [(f64, &EndLabel)], top: f64, bottom: f64) {
    let n = placed.len();
    let line = LINE.min((bottom - top) / n.max(1) as f64);
    let mut least = top;
    for label in placed.iter_mut() {
        label.0 = label.0.max(least);
        least = label.0 + line;
    }
    let mut most = bottom;
    for label in placed.iter_mut().rev() {
        label.0 = label.0.min(most);
        most = label.0 - line;
    }
}

/// Room for the labels, or without any.
fn margin(plot: &Plot) -> f64 {
    let letters = |text: &str| -> f64 {
        let width =
            |(piece, raised): (&str, bool)| piece.chars().count() as f64 * if raised { 0.72 } else { 1.0 };
        pieces(text).into_iter().map(width).sum()
    };
    let longest = plot.labels.iter().flatten().map(|l| letters(&l.text)).fold(0.0, f64::max);
    if longest > 0.0 { (KEY + LETTER * longest).max(RIGHT) } else { RIGHT_BARE }
}

/// The plot as one `<svg>` element.
pub(crate) fn svg(plot: &Plot, medium: Medium) -> String {
    let frame = Frame { plot, medium, right: WIDTH - margin(plot) };
    let id = escape(&plot.id);
    let mut out = head(medium, &plot.id, HEIGHT, &plot.description);
    let _ = write!(
        out,
        r#"<defs><clipPath id="{id}-clip"><rect x="{LEFT}" y="{TOP}" width="{:.1}" height="{:.1}"/></clipPath></defs>"#,
        frame.right - LEFT,
        HEIGHT - BOTTOM - TOP,
    );
    frame.axes(&mut out);
    let _ = write!(out, r##"<g class="marks" clip-path="url(#{id}-clip)">"##);
    plot.marks.iter().for_each(|m| frame.mark(m, &mut out));
    out.push_str("</g>");
    frame.end_labels(&mut out);
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance_and_stay_inside() {
        let label = EndLabel::new(0.0, String::new(), Colour::Ink);
        let mut placed = [100.0, 101.0, 102.0, 330.0, 335.0].map(|y| (y, &label));
        spread(&mut placed, 30.0, 340.0);
        assert!(placed.windows(2).all(|w| w[1].0 - w[0].0 >= LINE - 1e-9));
        assert!(placed[0].0 >= 30.0 && placed[4].0 <= 340.0);
    }
}
