//! The sweep file, planning, schedulers, run state, fitting and reports.

pub mod calibrate;
pub mod compile;
pub mod data;
pub mod device;
pub mod display;
pub mod family;
pub mod file;
pub mod fit;
pub mod local;
pub mod plan;
mod process;
pub mod report;
pub mod results;
pub mod status;
pub mod step_times;
pub mod study;
