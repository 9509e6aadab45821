//! Loss laws and their minimisers: from runs and a form to the parameters with the least objective.

mod bfgs;
mod kaplan;
mod lanes;
mod linear;
mod newton;
mod points;
mod projection;
mod solve;
mod sum;

pub(crate) use newton::{EXPONENT_MAX, EXPONENT_MIN, Hold, Minimum, Problem, minimise};
pub(crate) use points::{Mat5, Measure, Points, Vec5};
pub(crate) use solve::{NEGLIGIBLE, Solution, Solver};
