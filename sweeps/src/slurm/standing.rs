//! Where every run of a study stands: its own files and what Slurm says of its jobs, put together.

use super::SlurmError;
use super::command::Slurm;
use super::history::History;
use super::journal::Intent;
use super::ledger::{self, Attempt};
use super::nodes::{BadNode, Nodes};
use super::parse::{JobState, TaskId};
use super::policy::{Cause, Next, cause};
use super::resources::Resources;
use super::view::{Task, View, view};
use crate::plan::Plan;
use crate::status::{RunRow, is_done, rows};
use crate::study::Study;
use isoflop_runtime::status::State;
use serde::Serialize;
use std::collections::HashSet;

/// The job that matters most for a run: the one that runs, else the first that waits, else the newest that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobRow {
    /// `12_3`.
    pub id: String,
    /// None where Slurm knows nothing of it any more.
    pub state: Option<JobState>,
    /// Slurm's word for why it waits or how it ended.
    pub reason: String,
    pub nodes: String,
    /// When it is expected to start, or did.
    pub start: Option<String>,
    /// Times that it, and jobs of this run before it, began.
    pub attempts: usize,
}

/// What is to be done for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// Finished or diverged.
    Done,
    /// A job of it waits or runs.
    Live,
    /// Never submitted.
    New,
    /// Taken out of the queue by a person.
    Cancelled,
    /// Its jobs are over and it is not done; the next submission takes it up.
    Continues { cause: Cause },
    /// Its jobs are over and it is not done; only `isoflop retry` takes it up.
    GivenUp { cause: Cause },
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    #[serde(flatten)]
    pub row: RunRow,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// None for a run that was never submitted.
    pub job: Option<JobRow>,
    /// What its newest job asked for.
    #[serde(skip)]
    pub resources: Option<Resources>,
}

impl Standing {
    /// GPUs of its job, or its CPUs where it has none; 1 where it never had a job.
    pub fn units(&self) -> f64 {
        self.resources.as_ref().map_or(1.0, |r| f64::from(r.units()))
    }

    /// True where Slurm itself holds its job, after it could not start it: nobody wanted that.
    pub fn is_held_by_slurm(&self) -> bool {
        self.job.as_ref().is_some_and(|j| {
            let reason = j.reason.replace('_', " ");
            let of_slurm = reason.starts_with("launch failed") || reason == "JobHoldMaxRequeue";
            j.state == Some(JobState::Held) && of_slurm
        })
    }
}

/// All runs, in the order of the plan, and what else was learnt on the way.
#[derive(Debug)]
pub struct Standings {
    pub runs: Vec<Standing>,
    /// Nodes to leave out of further jobs.
    pub bad_nodes: Vec<BadNode>,
    /// Why accounts could not be asked.
    pub incomplete: Option<String>,
}

/// Asks Slurm once and puts everything together.
///
/// # Errors
/// When a file of the study cannot be read, or Slurm not be asked.
pub fn standings(
    slurm: &Slurm,
    study: &Study,
    plan: &Plan,
    history: &History,
) -> Result<Standings, SlurmError> {
    let rows = rows(study, plan)?;
    let view = view(slurm, history, &open(&rows))?;
    together(study, history, &view, rows)
}

/// The runs that are not done.
pub fn open(rows: &[RunRow]) -> HashSet<&str> {
    rows.iter().filter(|r| !is_done(r.state)).map(|r| r.id.as_str()).collect()
}

/// Puts rows and what Slurm said of the jobs of `history` together. Where `view` is older than the rows, so are the jobs.
///
/// # Errors
/// When a file of the study cannot be read.
pub fn together(
    study: &Study,
    history: &History,
    view: &View,
    rows: Vec<RunRow>,
) -> Result<Standings, SlurmError> {
    let (mut runs, mut nodes) = (Vec::with_capacity(rows.len()), Nodes::new(history));
    for row in rows {
        runs.push(of_run(study, history, view, row, &mut nodes)?);
    }
    Ok(Standings { runs, bad_nodes: nodes.bad(), incomplete: view.incomplete.clone() })
}

fn of_run(
    study: &Study,
    history: &History,
    view: &View,
    mut row: RunRow,
    nodes: &mut Nodes,
) -> Result<Standing, SlurmError> {
    let tasks: Vec<(&Intent, TaskId)> = history.tasks(&row.id).collect();
    let Some((newest, newest_id)) = tasks.last().copied() else {
        let verdict = if is_done(row.state) { Verdict::Done } else { Verdict::New };
        return Ok(Standing { row, verdict, job: None, resources: None });
    };
    let state_of = |id: TaskId| view.task(id).map(|t| t.state);
    let in_state = |wanted: fn(JobState) -> bool| {
        tasks.iter().copied().find(|(_, id)| state_of(*id).is_some_and(wanted))
    };
    let live =
        in_state(|s| matches!(s, JobState::Running | JobState::Completing)).or(in_state(JobState::is_live));
    // Of a chain the last segment that began says why it ended; those after it were taken back.
    let mut attempts = Vec::new();
    let (mut last, mut last_attempts) = (newest_id, Vec::new());
    if !is_done(row.state) {
        for (intent, id) in &tasks {
            let of_task = ledger::read(study.dir(), &intent.tag, id.1)?;
            if intent.tag == newest.tag && !of_task.is_empty() {
                (last, last_attempts) = (*id, of_task.clone());
            }
            nodes.count(*id, view.task(*id), &of_task, live.is_some_and(|(_, live)| live == *id));
            attempts.extend(of_task);
        }
    }
    // The files of runs that are done are not read again: of a chain its first segment stands for it.
    let done_chain = is_done(row.state) && newest.chain;
    let id = live.map_or(if done_chain { (newest_id.0, 0) } else { last }, |(_, id)| id);
    let task = view.task(id);
    let resources = newest.resources.clone();
    let verdict = if is_done(row.state) {
        Verdict::Done
    } else if live.is_some() {
        Verdict::Live
    } else if history.is_cancelled(&row.id) {
        Verdict::Cancelled
    } else {
        verdict(history, &row, task, &last_attempts, resources.mem_mib)
    };
    // The owner of a run on another host cannot be looked at, but Slurm knows that its job is over.
    if row.state == State::Running && live.is_none() && view.incomplete.is_none() {
        row.state = State::Interrupted;
    }
    let job = JobRow {
        id: format!("{}_{}", id.0, id.1),
        state: task.map(|t| t.state),
        reason: task.map(|t| t.reason.clone()).unwrap_or_default(),
        nodes: task.map(|t| t.nodes.clone()).unwrap_or_default(),
        start: task.and_then(|t| t.start.clone()),
        attempts: attempts.len(),
    };
    Ok(Standing { row, verdict, job: Some(job), resources: Some(resources) })
}

/// What the end of its newest job means for a run.
fn verdict(
    history: &History,
    row: &RunRow,
    task: Option<&Task>,
    attempts: &[Attempt],
    asked_mib: Option<u64>,
) -> Verdict {
    let cause = cause(task, attempts, asked_mib.map(|mib| mib << 20), row.memory.as_ref());
    match cause.next(history.times(&row.id, cause)) {
        Next::GiveUp => Verdict::GivenUp { cause },
        Next::Again | Next::MoreMemory => Verdict::Continues { cause },
    }
}
