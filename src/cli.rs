//! The command line: verbs and what they have in common.

use crate::verbs;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Plans, compiles, runs and fits families of Gopher models from one sweep file.
#[derive(Parser)]
#[command(name = "isoflop", version, propagate_version = true, max_term_width = 110, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[cfg(feature = "study")]
const EXAMPLE: &str = "Example, from a sweep file to a report:
  isoflop data prepare --source gcide --out corpus/gcide
  isoflop plan sweeps/examples/nano.toml
  isoflop run sweeps/examples/nano.toml --out studies/nano
  isoflop fit studies/nano
  isoflop report studies/nano";

#[cfg(not(feature = "study"))]
const EXAMPLE: &str = "Example:
  isoflop train studies/nano/runs/c1e11-n21k-s0

This is the worker: it trains what a full isoflop planned and compiled.";

#[derive(Subcommand)]
enum Verb {
    /// Show every run of a sweep: shape, parameters, tokens, FLOPs, memory, time
    #[cfg(feature = "study")]
    Plan(verbs::plan::Args),
    /// Compile the models of a sweep, or one model, and show any stage of it
    #[cfg(feature = "study")]
    Compile(verbs::compile::Args),
    /// Measure this machine's CPU, so that predictions are its own
    #[cfg(feature = "study")]
    Calibrate(verbs::calibrate::Args),
    /// Run compiler passes over a graph in text form
    #[cfg(feature = "study")]
    Opt(verbs::opt::Args),
    /// Keep the kernels that the compiler generates, and show what a change of the compiler changes in them
    #[cfg(feature = "study")]
    #[command(subcommand)]
    Kernels(verbs::kernels::Kernels),
    /// Run a sweep on this machine; starts again only what is not finished
    #[cfg(feature = "study")]
    Run(verbs::run::Args),
    /// Submit a sweep to Slurm; submits again only what has no job and is not finished
    #[cfg(feature = "study")]
    Submit(verbs::submit::Args),
    /// Take runs of a study out of the Slurm queue; they save and stop
    #[cfg(feature = "study")]
    Cancel(verbs::cancel::Args),
    /// Submit runs again that a submission leaves alone: failed, cancelled or given up
    #[cfg(feature = "study")]
    Retry(verbs::retry::Args),
    /// Wait until the jobs of a study are over
    #[cfg(feature = "study")]
    Wait(verbs::wait::Args),
    /// Say in one line why a run waits, or why it ended
    #[cfg(feature = "study")]
    Explain(verbs::explain::Args),
    /// Print what the jobs of a run said
    #[cfg(feature = "study")]
    Logs(verbs::logs::Args),
    /// Train one run directory: what every executor starts
    Train(verbs::train::Args),
    /// Show where the runs of a study stand
    #[cfg(feature = "study")]
    Status(verbs::status::Args),
    /// Fit scaling laws to the finished runs of a study, or to any table of runs
    #[cfg(feature = "study")]
    Fit(verbs::fit::Args),
    /// Spend a compute budget by a fitted law: parameters, tokens, loss, and the nearest shape
    #[cfg(feature = "study")]
    Allocate(verbs::allocate::Args),
    /// Draw runs from a known law, to test a design before paying for it
    #[cfg(feature = "study")]
    Simulate(verbs::simulate::Args),
    /// Choose the next runs: those that tell most about N* or the loss at some compute, for a budget
    #[cfg(feature = "study")]
    Propose(verbs::propose::Args),
    /// Write a study's report as one HTML page
    #[cfg(feature = "study")]
    Report(verbs::report::Args),
    /// Show the processor and the GPUs of this machine, and which kernels they run
    Devices(verbs::devices::Args),
    /// Make token files from text
    #[command(subcommand)]
    Data(verbs::data::Data),
    /// Print a completion script for a shell
    Completions(verbs::completions::Args),
}

/// How tables are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[cfg(feature = "study")]
pub enum Format {
    #[default]
    Table,
    Json,
}

pub fn run(cli: Cli) -> miette::Result<ExitCode> {
    match cli.verb {
        #[cfg(feature = "study")]
        Verb::Plan(args) => verbs::plan::run(&args),
        #[cfg(feature = "study")]
        Verb::Compile(args) => verbs::compile::run(&args),
        #[cfg(feature = "study")]
        Verb::Calibrate(args) => verbs::calibrate::run(&args),
        #[cfg(feature = "study")]
        Verb::Opt(args) => verbs::opt::run(&args),
        #[cfg(feature = "study")]
        Verb::Kernels(kernels) => verbs::kernels::run(&kernels),
        #[cfg(feature = "study")]
        Verb::Run(args) => verbs::run::run(&args),
        #[cfg(feature = "study")]
        Verb::Submit(args) => verbs::submit::run(&args),
        #[cfg(feature = "study")]
        Verb::Cancel(args) => verbs::cancel::run(&args),
        #[cfg(feature = "study")]
        Verb::Retry(args) => verbs::retry::run(&args),
        #[cfg(feature = "study")]
        Verb::Wait(args) => verbs::wait::run(&args),
        #[cfg(feature = "study")]
        Verb::Explain(args) => verbs::explain::run(&args),
        #[cfg(feature = "study")]
        Verb::Logs(args) => verbs::logs::run(&args),
        Verb::Train(args) => verbs::train::run(&args),
        Verb::Devices(args) => verbs::devices::run(&args),
        #[cfg(feature = "study")]
        Verb::Status(args) => verbs::status::run(&args),
        #[cfg(feature = "study")]
        Verb::Fit(args) => verbs::fit::run(&args),
        #[cfg(feature = "study")]
        Verb::Allocate(args) => verbs::allocate::run(&args),
        #[cfg(feature = "study")]
        Verb::Simulate(args) => verbs::simulate::run(&args),
        #[cfg(feature = "study")]
        Verb::Propose(args) => verbs::propose::run(&args),
        #[cfg(feature = "study")]
        Verb::Report(args) => verbs::report::run(&args),
        Verb::Data(data) => verbs::data::run(&data),
        Verb::Completions(args) => verbs::completions::run(&args),
    }
}
