//! `isoflop retry`: runs that a submission leaves alone, submitted again because a person says so.

use crate::output;
use crate::verbs::jobs::{self, Job, RunsArgs};
use isoflop_runtime::status::State;
use isoflop_sweeps::slurm::SlurmError;
use isoflop_sweeps::slurm::cancel::release;
use isoflop_sweeps::slurm::policy::Cause;
use isoflop_sweeps::slurm::standing::{Standing, Verdict};
use isoflop_sweeps::slurm::submit::{Report, Which};
use miette::miette;
use std::collections::HashSet;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop retry studies/one --failed
  isoflop retry studies/one c1e11-n21k-s0

Submits what is not done and has no job: cancelled runs, failed ones, and those that were tried too often. Jobs that are held
are released. What was counted against a run is forgotten, but memory that was given to it stays.")]
pub struct Args {
    #[command(flatten)]
    runs: RunsArgs,
    /// Only runs that failed
    #[arg(long)]
    failed: bool,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = args.runs.of.open()?;
    let named = args.runs.named(&job)?;
    let report = retry(&job, &named, args.failed).map_err(|e| miette!("{e}"))?;
    args.runs.of.print(&report, &jobs::lines(&report, &args.runs.of.study))?;
    Ok(ExitCode::SUCCESS)
}

fn retry(job: &Job, named: &HashSet<&str>, only_failed: bool) -> Result<Report, SlurmError> {
    let (_, now) = job.look()?;
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
