//! Executes programs: devices, memory, data, checkpoints, the training loop and its metrics. Never links the compiler.

pub mod config;
pub mod status;
