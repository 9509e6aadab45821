//! Which runs tell most: optimal designs on the covariance of a fitted law, and their test by simulation.
//!
//! [`Known`] is a fitted law of approach 3 with the noise of its runs and the covariance that follows. A run adds the square
//! of its slopes over the variance of its noise to the inverse of that covariance; [`Known::best`] chooses runs that leave
//! the least variance of a [`Target`], [`Known::simulate`] draws and refits what they would give.

mod error;
mod exchange;
mod known;
mod noise;
mod simulated;
mod target;

pub use error::DesignError;
pub use known::{Known, Ranges};
pub use noise::NoiseFrom;
pub use simulated::Simulated;
pub use target::{Quantity, Target};
