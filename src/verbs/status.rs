//! `isoflop status`: where the runs of a study stand.

use crate::cli::Format;
use crate::output;
use crate::watch;
use clap::ValueHint;
use isoflop_sweeps::display;
use isoflop_sweeps::overview::{Overview, Reader, RunView};
use isoflop_sweeps::slurm::command::Slurm;
use isoflop_sweeps::slurm::nodes;
use isoflop_sweeps::slurm::standing::JobRow;
use isoflop_sweeps::work::Work;
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop status studies/nano --output json
  isoflop status studies/nano --watch

Of a study that was submitted to Slurm it also shows the jobs, and asks Slurm once for all of them. With --watch it is a screen
that goes on until q, Esc or Ctrl-C; it reads the files of the study every second or two and asks Slurm every --every seconds,
less often while the controller is away.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// A screen that shows how the runs go on, with the loss of one of them
    #[arg(long, conflicts_with = "output")]
    watch: bool,
    /// Seconds between two questions to Slurm
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let mut reader = Reader::open(&args.study).map_err(|e| miette!("{e}"))?;
    if args.watch {
        return watch::watch(reader, Duration::from_secs(args.every));
    }
    let (answer, away) = match reader.asker().ask(&Slurm::new()) {
        Ok(answer) => (answer, None),
        Err(e) => (None, Some(e.to_string())),
    };
    let mut overview = reader.read(answer.as_ref()).map_err(|e| miette!("{e}"))?;
    if let Some(said) = away {
        overview.slurm_error = Some(format!("jobs are not shown: {said}"));
    }
    match args.output {
        Format::Json => output::json(&overview)?,
        Format::Table => {
            output::print(&table(&overview))?;
            output::line(&in_words(&overview.work))?;
            nodes::in_words(&overview.left_out).iter().try_for_each(|words| output::line(words))?;
            overview.slurm_error.iter().for_each(|said| output::note(said));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs, and their jobs where there are any.
fn table(overview: &Overview) -> String {
    let mut headings = vec!["run", "state", "step", "train loss", "validation loss", "tokens/s"];
    let has_jobs = overview.asked.is_some();
    if has_jobs {
        headings.extend(["job", "job state", "nodes or reason"]);
    }
    let mut table = output::table(&headings, 2);
    let loss = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    let word = |run: &RunView| format!("{:?}", run.row.state).to_lowercase();
    for run in &overview.runs {
        let row = &run.row;
        let speed = if row.tokens_per_s > 0.0 { format!("{:.0}", row.tokens_per_s) } else { "-".to_owned() };
        let mut cells = vec![
            row.id.clone(),
            word(run),
            format!("{}/{}", row.step, row.steps),
            loss(row.train_loss),
            loss(row.validation_loss),
            speed,
        ];
        if has_jobs {
            cells.extend(job_cells(run.job.as_ref()));
        }
        table.add_row(cells);
    }
    let mut text = format!("{table}\n");
    for run in &overview.runs {
        if let Some(reason) = &run.row.reason {
            text.push_str(&format!("{}: {}, {reason}\n", run.row.id, word(run)));
        }
    }
    text
}

/// `ends in 3 h 20 min; 12.30 CPU hours used, 0.40 of them wasted (310 steps), 20.10 left; 4 attempts`.
pub fn in_words(work: &Work) -> String {
    let end = work.seconds_to_end.map_or_else(String::new, |s| format!("ends in {}; ", display::seconds(s)));
    let left = work.hours_left.map_or_else(|| "an unknown number".into(), |h| format!("{h:.2}"));
    format!(
        "{end}{:.2} {} hours used, {:.2} of them wasted ({} steps), {left} left; {} attempts",
        work.hours_used, work.unit, work.hours_wasted, work.steps_wasted, work.attempts
    )
}

fn job_cells(job: Option<&JobRow>) -> [String; 3] {
    let Some(job) = job else { return ["-", "-", "-"].map(str::to_owned) };
    let state = job.state.map_or_else(|| "-".to_owned(), |s| s.to_string());
    let reason = Some(&job.reason).filter(|r| !r.is_empty() && *r != "None");
    let place = [Some(&job.nodes).filter(|n| !n.is_empty()), reason].into_iter().flatten().next();
    [job.id.clone(), state, place.map_or_else(|| "-".to_owned(), Clone::clone)]
}
