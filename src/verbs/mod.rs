//! One file for each verb of the command line.

#[cfg(feature = "study")]
pub mod allocate;
#[cfg(feature = "study")]
pub mod calibrate;
#[cfg(feature = "study")]
pub mod cancel;
#[cfg(feature = "study")]
pub mod compile;
pub mod completions;
pub mod data;
pub mod devices;
#[cfg(feature = "study")]
pub mod explain;
#[cfg(feature = "study")]
mod filetest;
#[cfg(feature = "study")]
pub mod fit;
#[cfg(feature = "study")]
mod fit_accuracy;
#[cfg(feature = "study")]
mod fit_args;
#[cfg(feature = "study")]
mod jobs;
#[cfg(feature = "study")]
pub mod kernels;
#[cfg(feature = "study")]
pub mod logs;
#[cfg(feature = "study")]
pub mod opt;
#[cfg(feature = "study")]
mod passes;
#[cfg(feature = "study")]
pub mod plan;
#[cfg(feature = "study")]
mod plan_cluster;
#[cfg(feature = "study")]
pub mod propose;
#[cfg(feature = "study")]
pub mod report;
#[cfg(feature = "study")]
pub mod retry;
#[cfg(feature = "study")]
pub mod run;
#[cfg(feature = "study")]
pub mod simulate;
#[cfg(feature = "study")]
pub mod status;
#[cfg(feature = "study")]
pub mod submit;
pub mod train;
#[cfg(feature = "study")]
pub mod wait;
