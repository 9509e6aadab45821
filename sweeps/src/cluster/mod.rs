//! Plans for a described cluster: which layouts of a run fit its GPUs, what each takes, and which one to choose.
//!
//! [`file`] reads the description, [`layout`] lists layouts, [`memory`] takes what a GPU holds from the compiler's plan of
//! one rank's graph, [`time`] computes the seconds of a step with the shares of [`efficiency`], and [`estimate`] chooses.
//! tests/golden/published.csv holds the published runs that the seconds are checked on.

pub mod calibration;
pub mod efficiency;
pub mod estimate;
pub mod file;
pub mod layout;
pub mod memory;
pub mod time;
pub mod transformer;
