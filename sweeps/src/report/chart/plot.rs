//! What a plot is: axes, marks in data units, and labels in its margin.

use super::palette::Colour;
use super::scale::Axis;

/// Forms that tell series apart without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    Cross,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stroke {
    pub width: f64,
    /// Lengths of dashes and gaps; empty for an unbroken line.
    pub dash: &'static str,
    pub opacity: f64,
}

impl Stroke {
    pub const PLAIN: Stroke = Stroke { width: 2.0, dash: "", opacity: 1.0 };

    /// Approaches differ in their dashes too.
    pub fn approach(approach: u8) -> Stroke {
        match approach {
            1 => Stroke { dash: "7 5", ..Stroke::PLAIN },
            2 => Stroke { dash: "2 5", width: 2.6, ..Stroke::PLAIN },
            _ => Stroke::PLAIN,
        }
    }
}

/// One thing drawn in a plot. `tip` is shown while pointing at it; `class` is what the page's toggles go by.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
        stroke: Stroke,
        class: &'static str,
        tip: String,
    },
    /// (x, low, high).
    Band {
        points: Vec<(f64, f64, f64)>,
        colour: Colour,
        tip: String,
    },
    Dot {
        x: f64,
        y: f64,
        shape: Shape,
        size: f64,
        colour: Colour,
        hollow: bool,
        class: &'static str,
        tip: String,
    },
    /// Nothing to see: a place on a line that says its value.
    Value {
        x: f64,
        y: f64,
        tip: String,
    },
    /// A bar with ends from `low` to `high` at `at`, along x if `across`.
    Interval {
        at: f64,
        low: f64,
        high: f64,
        across: bool,
        colour: Colour,
        tip: String,
    },
    /// A word in the plot beside a point, to its left where it lies in the right half.
    Word {
        x: f64,
        y: f64,
        text: String,
    },
    /// Shades everything right of x and says why, at the top or the bottom.
    Beyond {
        x: f64,
        text: String,
        top: bool,
    },
}

impl Mark {
    /// A full dot without a class.
    pub fn dot((x, y): (f64, f64), shape: Shape, size: f64, colour: Colour, tip: String) -> Mark {
        Mark::Dot { x, y, shape, size, colour, hollow: false, class: "", tip }
    }

    /// A line of an approach.
    pub fn law(points: Vec<(f64, f64)>, approach: u8, tip: String) -> Mark {
        let (colour, stroke) = (Colour::Approach(approach), Stroke::approach(approach));
        Mark::Line { points, colour, stroke, class: "", tip }
    }
}

/// A sample of the marks that a label names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Key {
    Full(Shape),
    Hollow(Shape),
    Line(Stroke),
}

/// A label in the right margin, at the height of the line it names or as near as the others allow.
#[derive(Debug, Clone)]
pub(crate) struct EndLabel {
    pub y: f64,
    /// In the markup of [`super::text::rich`].
    pub text: String,
    pub colour: Colour,
    pub key: Key,
    pub class: &'static str,
}

impl EndLabel {
    pub fn new(y: f64, text: String, colour: Colour) -> EndLabel {
        EndLabel { y, text, colour, key: Key::Full(Shape::Circle), class: "" }
    }

    pub fn keyed(self, key: Key) -> EndLabel {
        EndLabel { key, ..self }
    }
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

impl Plot {
    /// The height of the i-th of `n` rows of a key that is read from the top.
    pub fn row(y: &Axis, i: usize, n: usize) -> f64 {
        y.at(0.97 - 0.92 * i as f64 / n.max(14) as f64)
    }
}
