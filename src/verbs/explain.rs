//! `isoflop explain`: why a run waits, or why it ended.

use crate::cli::Format;
use crate::output;
use crate::verbs::jobs::{Job, newest_output};
use clap::ValueHint;
use isoflop_sweeps::slurm;
use isoflop_sweeps::slurm::explain::explain;
use isoflop_sweeps::slurm::history::History;
use isoflop_sweeps::slurm::standing::{Standing, Verdict, standings};
use miette::miette;
use serde::Serialize;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop explain studies/one c1e11-n21k-s0
  isoflop explain studies/one

Without names, every run that is not done.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// Names of runs
    runs: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    standing: Standing,
    line: String,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = Job::open(&args.study)?;
    let named: HashSet<&str> =
        slurm::named(&job.plan, &args.runs).map_err(|e| miette!("{e}"))?.into_iter().collect();
    let history = History::read(job.study.dir()).map_err(|e| miette!("{e}"))?.unwrap_or_default();
    let now = standings(&job.slurm, &job.study, &job.plan, &history).map_err(|e| miette!("{e}"))?;
    let mut explained = Vec::new();
    for standing in now.runs {
        let id = standing.row.id.as_str();
        if !named.contains(id) || (args.runs.is_empty() && standing.verdict == Verdict::Done) {
            continue;
        }
        let file = newest_output(&job.study, &history, id);
        let text = file.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let said = text.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("isoflop: "));
        let line = explain(&standing, said);
        explained.push(Explained { standing, line });
    }
    match args.output {
        Format::Json => output::json(&explained)?,
        Format::Table => {
            for one in &explained {
                output::line(&one.line)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
