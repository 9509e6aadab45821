//! Pictures of a graph before and after fusion: text for Graphviz, and a page to walk through. Pure functions of graphs.

mod dot;
mod html;
mod layout;
mod scene;
#[cfg(test)]
mod tests;

pub use dot::dot;
pub use html::{PictureError, html};
