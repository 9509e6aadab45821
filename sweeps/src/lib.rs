//! The sweep file, planning, schedulers, run state, fitting and reports.
