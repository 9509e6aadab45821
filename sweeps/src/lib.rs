//! The sweep file, planning, schedulers, run state, fitting and reports.
//!
//! Without the feature `mlir`, which is on by default, nothing here makes machine code or runs: sweep files, plans, fits
//! and reports remain, in pure Rust.

#[cfg(feature = "mlir")]
pub mod calibrate;
pub mod cluster;
pub mod compile;
pub mod data;
pub mod device;
pub mod display;
pub mod family;
pub mod file;
pub mod fit;
#[cfg(feature = "mlir")]
pub mod local;
pub mod overview;
pub mod plan;
mod process;
pub mod propose;
pub mod report;
pub mod reports;
pub mod results;
pub mod slurm;
pub mod status;
pub mod step_times;
pub mod study;
pub mod work;
