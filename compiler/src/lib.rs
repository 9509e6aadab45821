//! Model configurations to graphs, autodiff, fusion, memory plans and machine code. Pure: no device, no clock, no network.

pub mod autodiff;
#[cfg(feature = "mlir")]
pub mod cache;
pub mod compare;
pub mod config;
pub mod cost;
pub mod count;
pub mod driver;
pub mod filetest;
pub mod fuse;
pub mod graph;
pub mod interp;
pub mod lower;
pub mod machine;
pub mod matcher;
pub mod memory;
#[cfg(feature = "mlir")]
pub mod mlir;
pub mod model;
pub mod opt;
pub mod passes;
pub mod picture;
pub mod ptx;
pub mod recompute;
pub mod text;
pub mod verify;
