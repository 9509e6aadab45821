//! Memory of programs: where buffers lie, and what is alive at the peak.

pub mod alive;
mod place;
pub mod units;

pub use place::{Lifetime, Placement, lower_bound, place};
