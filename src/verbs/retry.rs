//! `isoflop retry`: runs that a submission leaves alone, submitted again because a person says so.

use crate::cli::Format;
use crate::output;
use crate::verbs::jobs::{self, Job};
use clap::ValueHint;
use isoflop_runtime::status::State;
use isoflop_sweeps::slurm::cancel::release;
use isoflop_sweeps::slurm::history::History;
use isoflop_sweeps::slurm::policy::Cause;
use isoflop_sweeps::slurm::standing::{Standing, Verdict, standings};
use isoflop_sweeps::slurm::submit::Which;
use isoflop_sweeps::slurm::{self, SlurmError};
use miette::miette;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop retry studies/one --failed
  isoflop retry studies/one c1e11-n21k-s0

Submits what is not done and has no job: cancelled runs, failed ones, and those that were tried too often. Jobs that are held
are released. What was counted against a run is forgotten, but memory that was given to it stays.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// Names of runs; all by default
    runs: Vec<String>,
    /// Only runs that failed
    #[arg(long)]
    failed: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = Job::open(&args.study)?;
    let named: HashSet<&str> =
        slurm::named(&job.plan, &args.runs).map_err(|e| miette!("{e}"))?.into_iter().collect();
    let report = retry(&job, &named, args.failed).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => jobs::show(&report, &args.study)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn retry(
    job: &Job,
    named: &HashSet<&str>,
    only_failed: bool,
) -> Result<isoflop_sweeps::slurm::submit::Report, SlurmError> {
    let history = History::read(job.study.dir())?.unwrap_or_default();
    let now = standings(&job.slurm, &job.study, &job.plan, &history)?;
    let chosen = |s: &&Standing| {
        let failed =
            s.row.state == State::Failed || matches!(s.verdict, Verdict::GivenUp { cause: Cause::Failed });
        named.contains(s.row.id.as_str()) && (!only_failed || failed)
    };
    let runs: HashSet<&str> = now.runs.iter().filter(chosen).map(|s| s.row.id.as_str()).collect();
    for run in release(&job.slurm, &now, &runs)? {
        output::note(&format!("released the job of {run}"));
    }
    job.submit(Which::These(&runs))
}
