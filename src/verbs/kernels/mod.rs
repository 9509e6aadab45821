//! `isoflop kernels`: the kernels of many models at once, kept and compared.

mod diff;
mod dump;
mod models;
mod revision;
mod show;

use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Kernels {
    /// Write what the compiler generates for a set of models
    Dump(dump::Args),
    /// Show what differs between two dumps
    Diff(diff::Args),
}

pub fn run(kernels: &Kernels) -> miette::Result<ExitCode> {
    match kernels {
        Kernels::Dump(args) => dump::run(args),
        Kernels::Diff(args) => diff::run(args),
    }
}
