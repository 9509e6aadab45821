//! Model configurations to graphs, autodiff, fusion, memory plans and machine code. Pure: no device, no clock, no network.

pub mod config;
pub mod count;
pub mod graph;
#[cfg(feature = "mlir")]
pub mod mlir;
