//! `isoflop cancel`: jobs out of the queue.

use crate::cli::Format;
use crate::output;
use crate::verbs::jobs::Job;
use clap::ValueHint;
use isoflop_sweeps::slurm::{self, cancel::cancel};
use miette::miette;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop cancel studies/one
  isoflop cancel studies/one c1e11-n21k-s0

Runs that are at work save and stop. `isoflop retry` puts cancelled runs back; `isoflop submit` leaves them alone.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// Names of runs; all by default
    runs: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Cancelled<'a> {
    cancelled: &'a [String],
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = Job::open(&args.study)?;
    let runs = slurm::named(&job.plan, &args.runs).map_err(|e| miette!("{e}"))?.into_iter().collect();
    let _lock = job.study.lock().map_err(|e| miette!("{e}"))?;
    let cancelled = cancel(&job.slurm, &job.study, &job.plan, &runs).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&Cancelled { cancelled: &cancelled })?,
        Format::Table => output::line(&format!("{} runs cancelled", cancelled.len()))?,
    }
    Ok(ExitCode::SUCCESS)
}
