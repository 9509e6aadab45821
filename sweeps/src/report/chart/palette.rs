//! Colours of the drawings: ordered series walk through viridis, approaches are told apart by Okabe-Ito hues, dashes and
//! shapes. The page refers to them by CSS variables, light and dark; paper has the light ones written out.

use std::fmt::Write;

/// Where a drawing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In the page, whose style sheet gives colours and text sizes.
    Page,
    /// In a file of its own on white: colours, sizes and fonts are written out.
    Paper,
}

/// Steps of the ordered colours.
pub(crate) const STEPS: usize = 12;

/// (name, light, dark).
const NAMED: [(&str, &str, &str); 9] = [
    ("ink", "#1a1c1f", "#e9eaec"),
    ("muted", "#666b73", "#a0a6af"),
    ("card", "#ffffff", "#191c20"),
    ("line", "#e2e2dc", "#2c3036"),
    ("grid", "#ebebe6", "#262a30"),
    ("axis", "#9a9ea6", "#6b727c"),
    ("a1", "#00805d", "#35c9a0"),
    ("a2", "#c44f00", "#f59552"),
    ("a3", "#0069a8", "#66b8f0"),
];
/// (light, dark).
const RAMP: [(&str, &str); STEPS] = [
    ("#440154", "#7e5fc2"),
    ("#481a6c", "#6f72c9"),
    ("#472f7d", "#5f86c8"),
    ("#414487", "#4d97c2"),
    ("#39568c", "#3ea6b8"),
    ("#31688e", "#35b4ab"),
    ("#2a788e", "#41c09a"),
    ("#23888e", "#5ccb85"),
    ("#1f988b", "#80d46c"),
    ("#22a884", "#a7db55"),
    ("#35b779", "#cfe14a"),
    ("#54c568", "#fde74c"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Ink,
    Muted,
    /// Of what lies behind a plot.
    Card,
    Line,
    Grid,
    Axis,
    /// 1, 2 or 3.
    Approach(u8),
    /// A step of the ordered colours.
    Ramp(usize),
    /// The first, or the second where the page's reader asks for it.
    Either(usize, Option<usize>),
}

/// The i-th of n ordered colours.
pub(crate) fn step(i: usize, n: usize) -> usize {
    if n < 2 { 5 } else { (i as f64 * (STEPS - 1) as f64 / (n - 1) as f64).round() as usize }
}

impl Colour {
    fn name(self) -> &'static str {
        match self {
            Colour::Ink => "ink",
            Colour::Muted | Colour::Ramp(_) | Colour::Either(..) => "muted",
            Colour::Card => "card",
            Colour::Line => "line",
            Colour::Grid => "grid",
            Colour::Axis => "axis",
            Colour::Approach(1) => "a1",
            Colour::Approach(2) => "a2",
            Colour::Approach(_) => "a3",
        }
    }

    /// The value of a presentation attribute.
    pub fn value(self, medium: Medium) -> String {
        match (self, medium) {
            (Colour::Either(..), Medium::Page) => "var(--c)".into(),
            (Colour::Ramp(i), Medium::Page) => format!("var(--r{i})"),
            (Colour::Ramp(i) | Colour::Either(i, _), Medium::Paper) => RAMP[i.min(STEPS - 1)].0.into(),
            (named, Medium::Page) => format!("var(--{})", named.name()),
            (named, Medium::Paper) => {
                NAMED.iter().find(|(name, ..)| *name == named.name()).map_or("#666b73", |n| n.1).into()
            }
        }
    }

    /// A style attribute that gives the page both colours of a choice.
    pub fn choice(self, medium: Medium) -> String {
        let variable = |i: Option<usize>| i.map_or("var(--muted)".to_owned(), |i| format!("var(--r{i})"));
        match (self, medium) {
            (Colour::Either(first, second), Medium::Page) => {
                format!(" style=\"--cs:{};--cb:{}\"", variable(Some(first)), variable(second))
            }
            _ => String::new(),
        }
    }
}

/// The page's variables, light and dark.
pub(crate) fn style() -> String {
    let block = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut css = String::new();
        for (name, light, dark) in NAMED {
            let _ = write!(css, "--{name}:{};", pick(&(light, dark)));
        }
        for (i, both) in RAMP.iter().enumerate() {
            let _ = write!(css, "--r{i}:{};", pick(both));
        }
        css
    };
    format!(
        ":root{{{}}}\n@media (prefers-color-scheme: dark){{:root{{{}}}}}\n",
        block(|b| b.0),
        block(|b| b.1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paper_has_numbers_where_the_page_has_names() {
        for colour in [Colour::Ink, Colour::Approach(2), Colour::Ramp(11), Colour::Either(3, None)] {
            assert!(colour.value(Medium::Paper).starts_with('#'));
            let name = colour.value(Medium::Page);
            let name = name.strip_prefix("var(").and_then(|n| n.strip_suffix(')')).unwrap();
            assert!(name == "--c" || style().matches(&format!("{name}:#")).count() == 2, "{name}");
        }
        assert_eq!(
            Colour::Either(3, None).choice(Medium::Page),
            " style=\"--cs:var(--r3);--cb:var(--muted)\""
        );
        assert_eq!([step(0, 5), step(4, 5), step(0, 1)], [0, 11, 5]);
    }
}
