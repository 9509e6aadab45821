//! `isoflop cancel`: jobs out of the queue.

use crate::verbs::jobs::RunsArgs;
use isoflop_sweeps::slurm::cancel::cancel;
use miette::miette;
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop cancel studies/one
  isoflop cancel studies/one c1e11-n21k-s0

Runs that are at work save and stop. `isoflop retry` puts cancelled runs back; `isoflop submit` leaves them alone.")]
pub struct Args {
    #[command(flatten)]
    runs: RunsArgs,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = args.runs.of.open()?;
    let runs = args.runs.named(&job)?;
    let _lock = job.study.lock().map_err(|e| miette!("{e}"))?;
    let cancelled = cancel(&job.slurm, &job.study, &job.plan, &runs).map_err(|e| miette!("{e}"))?;
    let lines = [format!("{} runs cancelled", cancelled.len())];
    args.runs.of.print(&BTreeMap::from([("cancelled", cancelled)]), &lines)?;
    Ok(ExitCode::SUCCESS)
}
