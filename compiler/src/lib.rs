//! Model configurations to graphs, autodiff, fusion, memory plans and machine code. Pure: no device, no clock, no network.

pub mod autodiff;
pub mod config;
#[cfg(feature = "mlir")]
pub mod cache;
pub mod count;
pub mod driver;
pub mod fuse;
pub mod graph;
pub mod lower;
pub mod matcher;
pub mod memory;
pub mod model;
pub mod recompute;
#[cfg(feature = "mlir")]
pub mod mlir;
pub mod text;
pub mod interp;
pub mod verify;
pub mod passes;
pub mod opt;
