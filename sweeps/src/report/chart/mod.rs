//! Plots: marks in data units, drawn as SVG for the page or as a file of its own.

mod draw;
pub(crate) mod palette;
mod plot;
mod scale;
mod text;

pub(crate) use draw::{WIDTH, Words, head, svg, texts};
pub(crate) use palette::{Colour, Medium, step};
pub(crate) use plot::{EndLabel, Key, Mark, Plot, Shape, Stroke};
pub(crate) use scale::Axis;
pub(crate) use text::{escape, pieces};
