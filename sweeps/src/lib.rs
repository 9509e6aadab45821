//! The sweep file, planning, schedulers, run state, fitting and reports.

pub mod data;
pub mod device;
pub mod display;
pub mod family;
pub mod file;
pub mod fit;
pub mod plan;
pub mod report;
pub mod status;
pub mod study;
