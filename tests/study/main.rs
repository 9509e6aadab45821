//! Whole studies through the real program: to the end, interrupted in every way, with damaged files, and held to
//! the memory that was planned.
#![cfg(feature = "study")]

mod damaged;
mod interrupted;
#[path = "../lab/mod.rs"]
mod lab;
mod next;
mod owners;
mod process;
#[cfg(target_os = "linux")]
mod resident;
#[cfg(target_os = "linux")]
mod screen;
#[cfg(target_os = "linux")]
#[path = "../lab/terminal.rs"]
mod terminal;
mod whole;
