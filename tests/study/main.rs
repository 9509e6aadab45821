//! Whole studies through the real program: to the end, interrupted in every way, and with damaged files.
#![cfg(feature = "study")]

mod damaged;
mod interrupted;
#[path = "../lab/mod.rs"]
mod lab;
mod owners;
mod process;
mod whole;
