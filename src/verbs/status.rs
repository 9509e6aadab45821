//! `isoflop status`: where the runs of a study stand.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::display;
use isoflop_sweeps::slurm::command::Slurm;
use isoflop_sweeps::slurm::history::History;
use isoflop_sweeps::slurm::standing::{JobRow, Standing, standings};
use isoflop_sweeps::slurm::work::{self, Work};
use isoflop_sweeps::status::{RunRow, rows};
use isoflop_sweeps::study::Study;
use miette::miette;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  isoflop status studies/nano --output json

Of a study that was submitted to Slurm it also shows the jobs, and asks Slurm once for all of them.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Status<'a, R> {
    sweep: &'a str,
    runs: &'a [R],
    /// Of a study that was submitted to Slurm.
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<Work>,
    /// Why Slurm could not be asked, where it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    slurm_error: Option<String>,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let study = Study::new(&args.study);
    let plan = study.read_plan().map_err(|e| miette!("{e}"))?;
    let sweep = plan.sweep.as_str();
    let mut slurm_error = None;
    if let Some(history) = History::read(study.dir()).map_err(|e| miette!("{e}"))? {
        match standings(&Slurm::new(), &study, &plan, &history) {
            Ok(now) => {
                slurm_error = now.incomplete;
                let work = work::of_study(study.dir(), &plan.runs, &now.runs);
                match args.output {
                    Format::Json => {
                        output::json(&Status { sweep, runs: &now.runs, work: Some(work), slurm_error })?;
                    }
                    Format::Table => {
                        let jobs: Vec<_> = now.runs.iter().map(|s| s.job.as_ref()).collect();
                        let rows: Vec<RunRow> = now.runs.iter().map(|s: &Standing| s.row.clone()).collect();
                        output::print(&table(&rows, &jobs))?;
                        output::line(&in_words(&work))?;
                        slurm_error.iter().for_each(|said| output::note(said));
                    }
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(e) => slurm_error = Some(e.to_string()),
        }
    }
    let rows = rows(&study, &plan).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&Status { sweep, runs: &rows, work: None, slurm_error })?,
        Format::Table => {
            output::print(&table(&rows, &[]))?;
            slurm_error.iter().for_each(|said| output::note(&format!("jobs are not shown: {said}")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs, and their jobs where there are any.
fn table(rows: &[RunRow], jobs: &[Option<&JobRow>]) -> String {
    let mut headings = vec!["run", "state", "step", "train loss", "validation loss", "tokens/s"];
    if !jobs.is_empty() {
        headings.extend(["job", "job state", "nodes or reason"]);
    }
    let mut table = output::table(&headings, 2);
    let loss = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    let word = |row: &RunRow| format!("{:?}", row.state).to_lowercase();
    for (i, row) in rows.iter().enumerate() {
        let speed = if row.tokens_per_s > 0.0 { format!("{:.0}", row.tokens_per_s) } else { "-".to_owned() };
        let mut cells = vec![
            row.id.clone(),
            word(row),
            format!("{}/{}", row.step, row.steps),
            loss(row.train_loss),
            loss(row.validation_loss),
            speed,
        ];
        if let Some(job) = jobs.get(i) {
            cells.extend(job_cells(*job));
        }
        table.add_row(cells);
    }
    let mut text = format!("{table}\n");
    for row in rows {
        if let Some(reason) = &row.reason {
            text.push_str(&format!("{}: {}, {reason}\n", row.id, word(row)));
        }
    }
    text
}

/// `4 attempts; 12.3 CPU or GPU hours used, 0.4 of them wasted (310 steps), 20.1 left; ends in 3 h 20 min`.
fn in_words(work: &Work) -> String {
    let left = work.hours_left.map_or_else(|| "an unknown number".into(), |h| format!("{h:.2}"));
    let end = work.seconds_to_end.map_or_else(String::new, |s| format!("; ends in {}", display::seconds(s)));
    format!(
        "{} attempts; {:.2} CPU or GPU hours used, {:.2} of them wasted ({} steps), {left} left{end}",
        work.attempts, work.hours_used, work.hours_wasted, work.steps_wasted
    )
}

fn job_cells(job: Option<&JobRow>) -> [String; 3] {
    let Some(job) = job else { return ["-", "-", "-"].map(str::to_owned) };
    let state = job.state.map_or_else(|| "-".to_owned(), |s| s.to_string());
    let reason = Some(&job.reason).filter(|r| !r.is_empty() && *r != "None");
    let place = [Some(&job.nodes).filter(|n| !n.is_empty()), reason].into_iter().flatten().next();
    [job.id.clone(), state, place.map_or_else(|| "-".to_owned(), Clone::clone)]
}
