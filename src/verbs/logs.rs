//! `isoflop logs`: what the jobs of a run said.

use crate::cli::Format;
use crate::output;
use crate::verbs::jobs::Job;
use clap::ValueHint;
use isoflop_sweeps::slurm::history::History;
use isoflop_sweeps::slurm::script;
use isoflop_sweeps::status::{is_done, row};
use isoflop_sweeps::{plan::PlannedRun, slurm};
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop logs studies/one c1e11-n21k-s0 -f

Prints what all jobs of the run said, the oldest first. With -f it goes on until the run is finished or diverged. The JSON
output names the files.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// The run's name
    run: String,
    /// Go on with what is said from now on
    #[arg(short, long)]
    follow: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Files {
    run: String,
    files: Vec<PathBuf>,
}

/// Time between two looks at the files.
const POLL: Duration = Duration::from_millis(500);

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = Job::open(&args.study)?;
    slurm::named(&job.plan, std::slice::from_ref(&args.run)).map_err(|e| miette!("{e}"))?;
    let run: &PlannedRun =
        job.plan.runs.iter().find(|r| r.id == args.run).ok_or_else(|| miette!("no run {}", args.run))?;
    if args.output == Format::Json {
        let files = files(&job, &args.run)?.into_iter().filter(|f| f.exists()).collect();
        output::json(&Files { run: args.run.clone(), files })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut printed: HashMap<PathBuf, u64> = HashMap::new();
    loop {
        // Looked at before the files are: what is said last is printed.
        let done = is_done(row(&job.study, run).map_err(|e| miette!("{e}"))?.state);
        for file in files(&job, &args.run)? {
            let from = printed.entry(file.clone()).or_default();
            let Ok(mut opened) = std::fs::File::open(&file) else { continue };
            opened.seek(SeekFrom::Start(*from)).into_diagnostic()?;
            let mut text = Vec::new();
            *from += opened.read_to_end(&mut text).into_diagnostic()? as u64;
            output::print(&String::from_utf8_lossy(&text))?;
        }
        if !args.follow || done {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}

/// Where the jobs of a run write, the oldest first.
fn files(job: &Job, run: &str) -> miette::Result<Vec<PathBuf>> {
    let history = History::read(job.study.dir()).map_err(|e| miette!("{e}"))?.unwrap_or_default();
    let tasks = history.tasks(run).map(|(intent, (_, index))| (intent.tag.clone(), index));
    Ok(tasks.map(|(tag, index)| script::output(job.study.dir(), &tag, index)).collect())
}
