//! Draws a plot as SVG: marks first described in data units, then placed, labelled and escaped.
//!
//! Colours and text sizes come from the page's style sheet, so that one drawing serves light and dark, wide and narrow.

use super::scale::Axis;
use std::fmt::Write;

/// Drawing units of every plot; the page scales them to its columns.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 400.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 64.0;
const LEFT: f64 = 60.0;
/// Room for labels at the ends of lines, and without them.
const RIGHT: f64 = 100.0;
const RIGHT_BARE: f64 = 16.0;
/// Least distance of two labels in the margin: the line height of the narrow layout's text.
const LINE: f64 = 20.0;

/// Forms that tell series apart without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    Cross,
}

/// One thing drawn in a plot. `class` and `style` choose its colours; `tip` is shown while hovering.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        class: String,
        style: String,
        tip: String,
    },
    /// (x, low, high).
    Band {
        points: Vec<(f64, f64, f64)>,
        class: String,
        style: String,
    },
    Dot {
        x: f64,
        y: f64,
        shape: Shape,
        size: f64,
        class: String,
        style: String,
        tip: String,
    },
    /// Shades everything right of x and says why, at the top or the bottom.
    Beyond {
        x: f64,
        text: String,
        top: bool,
    },
}

/// A label in the right margin, at the height of the line it names or as near as the others allow.
#[derive(Debug, Clone)]
pub(crate) struct EndLabel {
    pub y: f64,
    /// In the markup of [`rich`].
    pub text: String,
    pub class: String,
    pub style: String,
}

/// A plot in data units.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub id: String,
    /// What a reader who cannot see it is told.
    pub description: String,
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Groups of labels; labels of one group do not overlap, groups are shown one at a time.
    pub labels: Vec<Vec<EndLabel>>,
    /// A line above the labels that says what they are.
    pub label_title: String,
}

/// Escapes text for HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in HTML.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Pieces of text with superscripts marked as `^{...}`: (piece, raised).
pub(crate) fn pieces(text: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("^{") {
        let Some((raised, next)) = after.split_once('}') else { break };
        found.push((before, false));
        found.push((raised, true));
        rest = next;
    }
    found.push((rest, false));
    found.retain(|(piece, _)| !piece.is_empty());
    found
}

/// SVG text with raised superscripts: `10^{11}`.
pub(crate) fn rich(text: &str) -> String {
    let mut out = String::new();
    let mut up = false;
    for (piece, raised) in pieces(text) {
        let piece = escape(piece);
        match (raised, up) {
            // dy is in units of the tspan's own text size: 0.72 of the line's for a superscript.
            (true, _) => {
                let piece = piece.replace('-', "\u{2212}");
                let _ = write!(out, r#"<tspan class="sup" dy="-0.5em">{piece}</tspan>"#);
            }
            (false, true) => {
                let _ = write!(out, r#"<tspan dy="0.36em">{piece}</tspan>"#);
            }
            (false, false) => out.push_str(&piece),
        }
        up = raised;
    }
    out
}

/// The numbers of a drawing, placed.
struct Frame<'a> {
    plot: &'a Plot,
    right: f64,
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        (LEFT + self.plot.x.share(value) * (self.right - LEFT)).clamp(-1e4, 1e4)
    }

    fn y(&self, value: f64) -> f64 {
        (HEIGHT - BOTTOM - self.plot.y.share(value) * (HEIGHT - BOTTOM - TOP)).clamp(-1e4, 1e4)
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut d = String::new();
        for (x, y) in points.filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let _ = write!(d, "{}{:.1} {:.1}", if d.is_empty() { 'M' } else { 'L' }, self.x(x), self.y(y));
        }
        d
    }

    fn axes(&self, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, self.right);
        out.push_str(r#"<g class="axes">"#);
        for tick in self.plot.y.ticks() {
            let y = self.y(tick.at);
            if let Some(text) = tick.text {
                let _ = write!(out, r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/>"#);
                let _ = write!(
                    out,
                    r#"<text x="{:.1}" y="{y:.1}" dy="0.34em" text-anchor="end">{}</text>"#,
                    LEFT - 8.0,
                    rich(&text)
                );
            }
        }
        for tick in self.plot.x.ticks() {
            let x = self.x(tick.at);
            let length = if tick.text.is_some() { 7.0 } else { 4.0 };
            let _ = write!(out, r#"<path class="tick" d="M{x:.1} {bottom}v{length}"/>"#);
            if let Some(text) = tick.text {
                let _ = write!(
                    out,
                    r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                    bottom + 25.0,
                    rich(&text)
                );
            }
        }
        let _ = write!(out, r#"<path class="axis" d="M{LEFT} {bottom}H{right}"/>"#);
        let _ = write!(
            out,
            r#"<text class="axis-title" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            0.5 * (LEFT + right),
            HEIGHT - 10.0,
            rich(&self.plot.x.title)
        );
        let _ =
            write!(out, r#"<text class="axis-title" x="4" y="18">{}</text></g>"#, rich(&self.plot.y.title));
    }

    fn mark(&self, mark: &Mark, out: &mut String) {
        let tip = |tip: &str| match tip {
            "" => String::new(),
            text => format!("<title>{}</title>", escape(text)),
        };
        match mark {
            Mark::Line { points, class, style, tip: text } => {
                let d = self.path(points.iter().copied());
                let _ = write!(
                    out,
                    r#"<path class="mark line {class}" style="{style}" d="{d}">{}</path>"#,
                    tip(text)
                );
            }
            Mark::Band { points, class, style } => {
                let there = points.iter().map(|p| (p.0, p.1));
                let back = points.iter().rev().map(|p| (p.0, p.2));
                let d = self.path(there.chain(back));
                let _ = write!(out, r#"<path class="mark band {class}" style="{style}" d="{d}Z"/>"#);
            }
            Mark::Dot { x, y, shape, size, class, style, tip: text } => {
                let (cx, cy, r) = (self.x(*x), self.y(*y), *size);
                if !(cx.is_finite() && cy.is_finite()) {
                    return;
                }
                let attributes = format!(r#"class="mark dot {class}" style="{style}""#);
                let tip = tip(text);
                let _ = match shape {
                    Shape::Circle => {
                        write!(
                            out,
                            r#"<circle {attributes} cx="{cx:.1}" cy="{cy:.1}" r="{r}">{tip}</circle>"#
                        )
                    }
                    Shape::Square => write!(
                        out,
                        r#"<rect {attributes} x="{:.1}" y="{:.1}" width="{w}" height="{w}">{tip}</rect>"#,
                        cx - 0.9 * r,
                        cy - 0.9 * r,
                        w = 1.8 * r
                    ),
                    Shape::Diamond => write!(
                        out,
                        r#"<path {attributes} d="M{cx:.1} {:.1}l{q} {q}l-{q} {q}l-{q} -{q}z">{tip}</path>"#,
                        cy - 1.3 * r,
                        q = 1.3 * r
                    ),
                    Shape::Cross => write!(
                        out,
                        r#"<path {attributes} d="M{:.1} {:.1}l{w} {w}m0 -{w}l-{w} {w}">{tip}</path>"#,
                        cx - r,
                        cy - r,
                        w = 2.0 * r
                    ),
                };
            }
            Mark::Beyond { x, text, top } => {
                let (x, bottom) = (self.x(*x), HEIGHT - BOTTOM);
                let width = (self.right - x).max(0.0);
                let _ = write!(
                    out,
                    r#"<rect class="beyond" x="{x:.1}" y="{TOP}" width="{width:.1}" height="{:.1}"/>"#,
                    bottom - TOP
                );
                let y = if *top { TOP + 20.0 } else { bottom - 12.0 };
                let _ = write!(
                    out,
                    r#"<text class="note" x="{:.1}" y="{y:.1}" text-anchor="end">{}</text>"#,
                    self.right - 8.0,
                    escape(text)
                );
            }
        }
    }

    fn end_labels(&self, out: &mut String) {
        let x = self.right + 8.0;
        if !self.plot.label_title.is_empty() {
            let _ = write!(
                out,
                r#"<text class="note" x="{WIDTH}" y="18" text-anchor="end">{}</text>"#,
                rich(&self.plot.label_title)
            );
        }
        for group in &self.plot.labels {
            let mut placed: Vec<(f64, &EndLabel)> =
                group.iter().map(|l| (self.y(l.y), l)).filter(|(y, _)| y.is_finite()).collect();
            placed.sort_by(|a, b| a.0.total_cmp(&b.0));
            spread(&mut placed, TOP + 6.0, HEIGHT - BOTTOM);
            for (y, label) in placed {
                let EndLabel { text, class, style, .. } = label;
                let _ = write!(
                    out,
                    r#"<g class="end {class}" style="{style}"><circle cx="{:.1}" cy="{y:.1}" r="4"/><text x="{:.1}" y="{y:.1}" dy="0.34em">{}</text></g>"#,
                    x + 4.0,
                    x + 13.0,
                    rich(text)
                );
            }
        }
    }
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

/// The plot as one `<svg>` element.
pub(crate) fn svg(plot: &Plot) -> String {
    let labelled = plot.labels.iter().any(|g| !g.is_empty());
    let frame = Frame { plot, right: WIDTH - if labelled { RIGHT } else { RIGHT_BARE } };
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="plot" id="{id}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}"><defs><clipPath id="{id}-clip"><rect x="{LEFT}" y="{TOP}" width="{:.1}" height="{:.1}"/></clipPath></defs>"#,
        escape(&plot.description),
        frame.right - LEFT,
        HEIGHT - BOTTOM - TOP,
        id = escape(&plot.id)
    );
    frame.axes(&mut out);
    let _ = write!(out, r##"<g class="marks" clip-path="url(#{}-clip)">"##, escape(&plot.id));
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
    fn text_is_escaped_and_superscripts_are_raised() {
        assert_eq!(escape("<a href='x'>&\u{7}"), "&lt;a href=&#39;x&#39;&gt;&amp;\u{fffd}");
        assert_eq!(
            rich("10^{-3} x"),
            "10<tspan class=\"sup\" dy=\"-0.5em\">\u{2212}3</tspan><tspan dy=\"0.36em\"> x</tspan>"
        );
        assert_eq!(rich("a ^{b"), "a ^{b");
    }

    #[test]
    fn labels_keep_their_distance_and_stay_inside() {
        let label = EndLabel { y: 0.0, text: String::new(), class: String::new(), style: String::new() };
        let mut placed = [100.0, 101.0, 102.0, 330.0, 335.0].map(|y| (y, &label));
        spread(&mut placed, 30.0, 340.0);
        assert!(placed.windows(2).all(|w| w[1].0 - w[0].0 >= LINE - 1e-9));
        assert!(placed[0].0 >= 30.0 && placed[4].0 <= 340.0);
    }
}
