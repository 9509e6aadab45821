//! Library kernels for the CPU: matrix products, relative attention, embedding gather and scatter, the
//! head with its cross entropy.
//!
//! Each kernel is a plain struct of dimensions with `phases()`, the number of independent tasks of each of its
//! phases (a barrier stands between phases), and an unsafe `run(phase, task, args)`. Task counts depend on shapes only
//! and a task's result never depends on which thread runs it: results are the same bits on any number of threads.

pub mod attention;
pub mod dispatch;
pub mod embedding;
pub mod gemm;
pub mod head;
pub mod peak;
mod scratch;
mod simd;
pub mod transpose;
