//! Executes programs: devices, memory, data, checkpoints, the training loop and its metrics. Never links the compiler.

pub mod check;
pub mod checkpoint;
pub mod config;
pub mod cuda;
pub mod data;
pub mod exec;
pub mod layout;
pub mod lease;
pub mod memory;
pub mod metrics;
pub mod placement;
pub mod pool;
pub mod profile;
pub mod rundir;
pub mod status;
pub mod tensorboard;
pub mod train;
