//! `isoflop explain`: why a run waits, or why it ended.

use crate::verbs::jobs::{RunsArgs, newest_output};
use isoflop_sweeps::slurm::explain::explain;
use isoflop_sweeps::slurm::nodes;
use isoflop_sweeps::slurm::standing::{Standing, Verdict};
use miette::miette;
use serde::Serialize;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop explain studies/one c1e11-n21k-s0
  isoflop explain studies/one

Without names, every run that is not done.")]
pub struct Args {
    #[command(flatten)]
    runs: RunsArgs,
}

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    standing: Standing,
    line: String,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = args.runs.of.open()?;
    let named = args.runs.named(&job)?;
    let (history, now) = job.look().map_err(|e| miette!("{e}"))?;
    let left_out = nodes::in_words(&now.bad_nodes);
    let mut explained = Vec::new();
    for standing in now.runs {
        let id = standing.row.id.as_str();
        if !named.contains(id) || (args.runs.runs.is_empty() && standing.verdict == Verdict::Done) {
            continue;
        }
        let file = newest_output(&job.study, &history, id);
        let text = file.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let said = text.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("isoflop: "));
        let line = explain(&standing, said);
        explained.push(Explained { standing, line });
    }
    let lines: Vec<String> = explained.iter().map(|one| one.line.clone()).chain(left_out).collect();
    args.runs.of.print(&explained, &lines)?;
    Ok(ExitCode::SUCCESS)
}
