//! `isoflop wait`: until the jobs of a study are over.

use crate::cli::Format;
use crate::output;
use crate::verbs::jobs::{self, Job, StudyArgs};
use isoflop_runtime::train::EXIT_CONTINUE;
use isoflop_sweeps::slurm::SlurmError;
use isoflop_sweeps::slurm::cancel::release;
use isoflop_sweeps::slurm::command::Patience;
use isoflop_sweeps::slurm::standing::{Standings, Verdict};
use isoflop_sweeps::slurm::submit::Which;
use miette::miette;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop wait studies/one --resubmit && isoflop fit studies/one

Asks Slurm every --every seconds, less often while the controller is away. Exit codes: 0 every run is finished or diverged, 75
some are left and have no job, or the time is over, 1 some were cancelled or given up.")]
pub struct Args {
    #[command(flatten)]
    of: StudyArgs,
    /// Submit again what ended early, as `isoflop submit` would, and what had no room
    #[arg(long)]
    resubmit: bool,
    /// Seconds between two looks at the queue
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Seconds after which to stop waiting
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// How the runs stand at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Ended {
    done: usize,
    /// Waiting or running still.
    live: usize,
    /// Without a job, and taken up by the next submission.
    left: usize,
    cancelled: usize,
    given_up: usize,
}

impl Ended {
    fn of(now: &Standings) -> Ended {
        let mut ended = Ended::default();
        for run in &now.runs {
            *match run.verdict {
                Verdict::Done => &mut ended.done,
                Verdict::Live => &mut ended.live,
                Verdict::New | Verdict::Continues { .. } => &mut ended.left,
                Verdict::Cancelled => &mut ended.cancelled,
                Verdict::GivenUp { .. } => &mut ended.given_up,
            } += 1;
        }
        ended
    }
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let job = args.of.open()?;
    let began = Instant::now();
    let mut patience = Patience::new(Duration::from_secs(args.every));
    let (mut told, mut ended) = (None, Ended::default());
    let mut releases = HashMap::new();
    loop {
        match look(&job, args.resubmit, &mut releases) {
            Ok(now) => {
                patience.answered();
                ended = now;
                if told != Some(ended) && args.of.output == Format::Table {
                    output::note(&words(&ended));
                    told = Some(ended);
                }
                if ended.live == 0 && (!args.resubmit || ended.left == 0) {
                    break;
                }
            }
            // Somebody else submits at this moment; or the controller is away.
            Err(SlurmError::Study(isoflop_sweeps::study::StudyError::Busy { .. })) => {}
            Err(e) if e.is_away() => {
                output::note(&format!("waiting for Slurm: {e}"));
                patience.away();
            }
            Err(e) => return Err(miette!("{e}")),
        }
        let left = args.timeout.map(|t| Duration::from_secs(t).saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        std::thread::sleep(left.map_or(patience.pause(), |left| patience.pause().min(left)));
    }
    // For who reads the results next.
    job.study.write_runs(&job.plan).map_err(|e| miette!("{e}"))?;
    args.of.print(&ended, &[words(&ended)])?;
    Ok(if ended.live + ended.left > 0 {
        ExitCode::from(EXIT_CONTINUE as u8)
    } else if ended.cancelled + ended.given_up > 0 {
        output::note(&format!("`isoflop explain {}` says why", args.of.study.display()));
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn words(e: &Ended) -> String {
    let Ended { done, live, left, cancelled, given_up } = e;
    format!("{done} done, {live} in the queue, {left} left, {cancelled} cancelled, {given_up} given up")
}

/// How often a job is released that Slurm held because it could not start it.
const MOST_RELEASES: u32 = 3;

/// Looks once. Where that is wanted, submits what is left, and releases what Slurm holds, which it does to jobs that it
/// could not start, as after a crash of its controller. `releases` counts for each run how often that was done.
fn look(job: &Job, resubmit: bool, releases: &mut HashMap<String, u32>) -> Result<Ended, SlurmError> {
    let (_, now) = job.look()?;
    if resubmit {
        let few = |id: &str| releases.get(id).is_none_or(|n| *n < MOST_RELEASES);
        let held = now.runs.iter().filter(|s| s.is_held_by_slurm()).map(|s| s.row.id.as_str());
        let held: HashSet<&str> = held.filter(|id| few(id)).collect();
        for run in release(&job.slurm, &now, &held)? {
            output::note(&format!("released the job of {run}, which Slurm held"));
            *releases.entry(run).or_default() += 1;
        }
    }
    if let Some(said) = now.incomplete {
        return Err(SlurmError::Incomplete { said });
    }
    let ended = Ended::of(&now);
    if !resubmit || ended.left == 0 {
        return Ok(ended);
    }
    let report = job.submit(Which::Rest)?;
    for submitted in &report.submitted {
        output::note(&format!("job {}: {}", submitted.job, jobs::tasks_in_words(&submitted.what)));
    }
    Ok(Ended::of(&job.look()?.1))
}
