//! What the backward pass reads of the forward pass: kept in memory, or computed again.
//!
//! [`cheap`] is a pass that runs always: cheap elementwise values are computed again. Beyond that, [`budget`] chooses
//! kernels to run again so that a program fits into a memory budget, [`kept`] says what there is to choose from, and
//! [`rerun`] rewrites the graph.

pub mod budget;
pub mod cheap;
pub mod kept;
mod rerun;
#[cfg(test)]
mod tests;

pub use cheap::recompute;
