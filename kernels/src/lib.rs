//! What a kernel is (signature, launch, arguments), what a [`Program`](program::Program) is, how both are kept
//! on disk, and the hand-written library kernels that the compiler calls rather than generates.
//!
//! This crate is the meeting point of the two halves that never see each other: the compiler writes programs,
//! the runtime executes them.

pub mod artifact;
mod check;
pub mod cpu;
pub mod cuda;
pub mod dtype;
pub mod footprint;
pub mod program;

pub use dtype::DType;
