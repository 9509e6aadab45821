//! How sure an estimate is: resamples of runs, intervals read off them, sandwich covariance, and profiles.

mod covariance;
mod linear;
mod normal;
mod profile;
mod resample;
mod spread;

pub(crate) use covariance::{Sandwich, sandwich};
pub(crate) use linear::{is_linear, shifts};
pub(crate) use normal::{cumulative, quantile};
pub(crate) use profile::profiles;
pub(crate) use resample::{Resampled, resampled};
pub(crate) use spread::Spread;
