//! The sweep file, planning, schedulers, run state, fitting and reports.

pub mod family;
pub mod file;
pub mod fit;
pub mod plan;
