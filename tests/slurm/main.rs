//! Studies on a real Slurm of several emulated nodes, started and stopped by each test. scripts/setup.sh installs Slurm; a
//! machine without it fails these tests.
#![cfg(all(feature = "study", target_os = "linux"))]

mod chains;
mod cluster;
mod crashes;
mod data;
mod ends;
mod family;
#[path = "../lab/mod.rs"]
mod lab;
mod limits;
mod nodes;
mod page;
#[path = "../pages/mod.rs"]
mod pages;
#[path = "../lab/terminal.rs"]
mod terminal;
mod whole;
