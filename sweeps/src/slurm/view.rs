//! Where all jobs of a study stand: one `squeue` for what is in the queue, and one `sacct` for what is no longer there.

use super::SlurmError;
use super::command::{CommandError, Slurm};
use super::history::{Fate, History};
use super::journal::Intent;
use super::parse::{self, JobState, TaskId};
use super::probe::user_id;
use std::collections::{HashMap, HashSet};

/// What Slurm says of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub state: JobState,
    /// Slurm's word for why it is pending or how it ended.
    pub reason: String,
    pub nodes: String,
    /// When it is expected to start, or did.
    pub start: Option<String>,
    /// Exit code and signal, of a task that ended.
    pub exit: Option<(i32, i32)>,
}

/// All that was found out at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    tasks: HashMap<TaskId, Task>,
    /// Why the accounts could not be asked, where they could not: of what has left the queue nothing is known then.
    pub incomplete: Option<String>,
}

impl View {
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }
}

/// Names that are given to one `squeue`; for more it is asked for all jobs of the user instead.
const MOST_NAMES: usize = 200;

/// Asks for the jobs of all batches that hold one of `runs`, which are those that are not done. No command is run where
/// there are none.
///
/// # Errors
/// When Slurm cannot be asked.
pub fn view(slurm: &Slurm, history: &History, runs: &HashSet<&str>) -> Result<View, SlurmError> {
    let wanted: Vec<(&Intent, u64)> = history
        .batches
        .iter()
        .filter_map(|b| match b.fate {
            Fate::Submitted { job } => Some((&b.intent, job)),
            _ => None,
        })
        .filter(|(intent, _)| intent.runs.iter().any(|run| runs.contains(run.as_str())))
        .collect();
    let mut view = View::default();
    if wanted.is_empty() {
        return Ok(view);
    }
    let names: HashMap<u64, &str> = wanted.iter().map(|(intent, job)| (*job, intent.name.as_str())).collect();
    for row in parse::queue(&queue(slurm, &names.values().copied().collect::<Vec<_>>())?) {
        if names.get(&row.task.0) == Some(&row.name.as_str()) {
            let parse::QueueRow { task, state, reason, nodes, start, .. } = row;
            view.tasks.insert(task, Task { state, reason, nodes, start, exit: None });
        }
    }
    let open = |(intent, job): &&(&Intent, u64)| {
        let live = |index: u32| view.tasks.get(&(*job, index)).is_some_and(|t| t.state.is_live());
        (0u32..).zip(&intent.runs).any(|(index, run)| runs.contains(run.as_str()) && !live(index))
    };
    let jobs: Vec<String> = wanted.iter().filter(open).map(|(_, job)| job.to_string()).collect();
    if jobs.is_empty() {
        return Ok(view);
    }
    let accounts = match account(slurm, &format!("--jobs={}", jobs.join(","))) {
        Ok(text) => text,
        Err(e) => {
            view.incomplete = Some(e.to_string());
            return Ok(view);
        }
    };
    for row in parse::account(&accounts) {
        // The queue knows better what is still in it. Numbers of jobs can be given out again.
        let live = view.tasks.get(&row.task).is_some_and(|t| t.state.is_live());
        if live || row.state.is_live() || names.get(&row.task.0) != Some(&row.name.as_str()) {
            continue;
        }
        let exit = Some((row.exit, row.signal));
        let reason = view.tasks.remove(&row.task).map(|t| t.reason).unwrap_or_default();
        view.tasks.insert(row.task, Task { state: row.state, reason, nodes: row.nodes, start: None, exit });
    }
    Ok(view)
}

/// `squeue` of jobs by name, ended ones that are still known included.
fn queue(slurm: &Slurm, names: &[&str]) -> Result<String, CommandError> {
    let mut options = vec![
        "--noheader".to_owned(),
        "--array".to_owned(),
        "--states=all".to_owned(),
        format!("--format={}", parse::QUEUE_FORMAT),
        format!("--user={}", user_id()),
    ];
    if names.len() <= MOST_NAMES {
        options.push(format!("--name={}", names.join(",")));
    }
    slurm.ask("squeue", &options)
}

/// `sacct`, empty where no accounts are kept.
fn account(slurm: &Slurm, which: &str) -> Result<String, CommandError> {
    let format = format!("--format={}", parse::ACCOUNT_FORMAT);
    let options = ["--noheader", "--parsable2", "--allocations", which, &format];
    match slurm.ask("sacct", &options) {
        Err(CommandError::Refused { said, .. }) if said.contains("accounting storage is disabled") => {
            Ok(String::new())
        }
        other => other,
    }
}

/// The number of the job with this intent's tag, by the queue, by the accounts, or by what it wrote itself.
///
/// # Errors
/// When Slurm cannot be asked.
pub fn find(slurm: &Slurm, study: &std::path::Path, intent: &Intent) -> Result<Option<u64>, SlurmError> {
    let in_queue = parse::queue(&queue(slurm, &[&intent.name])?);
    if let Some(row) = in_queue.iter().find(|row| row.name == intent.name) {
        return Ok(Some(row.task.0));
    }
    let since = super::journal::now().saturating_sub(intent.time) + 3_600;
    let format = format!("--format={}", parse::ACCOUNT_FORMAT);
    let options = [
        "--noheader".to_owned(),
        "--parsable2".to_owned(),
        "--allocations".to_owned(),
        format!("--name={}", intent.name),
        format!("--starttime=now-{since}seconds"),
        format,
    ];
    let accounts = match slurm.ask("sacct", &options) {
        Err(CommandError::Refused { said, .. }) if said.contains("accounting storage is disabled") => {
            String::new()
        }
        other => other?,
    };
    let number = |line: &str| {
        let mut fields = line.split('|');
        let id = fields.next()?.split('_').next()?.parse().ok()?;
        (fields.next()? == intent.name).then_some(id)
    };
    if let Some(job) = accounts.lines().find_map(number) {
        return Ok(Some(job));
    }
    for index in 0..intent.runs.len() as u32 {
        let attempts = super::ledger::read(study, &intent.tag, index)?;
        let job = attempts.first().and_then(|a| a.job.split('_').next()?.parse().ok());
        if job.is_some() {
            return Ok(job);
        }
    }
    Ok(None)
}
