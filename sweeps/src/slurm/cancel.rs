//! Taking jobs out of the queue, and releasing those that are held.

use super::SlurmError;
use super::command::{CommandError, Slurm};
use super::history::History;
use super::journal::{self, Journal, Record};
use super::parse::JobState;
use super::standing::{Standings, Verdict, standings};
use crate::plan::Plan;
use crate::study::Study;
use std::collections::{BTreeMap, HashSet};

/// Tasks named in one command.
const MOST_TASKS: usize = 500;

/// Cancels every job of these runs, all segments of a chain included. Runs save and stop. Returns the runs that had one.
/// The study's lock is held by the caller.
///
/// # Errors
/// When Slurm or the journal cannot be reached.
pub fn cancel(
    slurm: &Slurm,
    study: &Study,
    plan: &Plan,
    runs: &HashSet<&str>,
) -> Result<Vec<String>, SlurmError> {
    let mut journal = Journal::open(study.dir())?;
    let history = History::of(journal.records());
    let now = standings(slurm, study, plan, &history)?;
    let live: Vec<String> = now
        .runs
        .iter()
        .filter(|s| s.verdict == Verdict::Live && runs.contains(s.row.id.as_str()))
        .map(|s| s.row.id.clone())
        .collect();
    if live.is_empty() {
        return Ok(live);
    }
    // First the word, then the deed: a process that dies between the two leaves jobs that can be cancelled again.
    journal.write(Record::Cancelled { runs: live.clone(), time: journal::now() })?;
    let mut tasks: Vec<String> = Vec::new();
    for run in &live {
        tasks.extend(history.tasks(run).map(|(_, (job, index))| format!("{job}_{index}")));
    }
    for some in tasks.chunks(MOST_TASKS) {
        match slurm.ask("scancel", &[&["--quiet".to_owned()], some].concat()) {
            Ok(_) => {}
            // Some of them ended before.
            Err(CommandError::Refused { said, .. })
                if said.contains("already complet") || said.contains("Invalid job id") => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(live)
}

/// Releases the held jobs of these runs; returns their runs.
///
/// # Errors
/// When Slurm refuses.
pub fn release(slurm: &Slurm, now: &Standings, runs: &HashSet<&str>) -> Result<Vec<String>, SlurmError> {
    let held = now.runs.iter().filter(|s| runs.contains(s.row.id.as_str()));
    let held: BTreeMap<&str, &str> = held
        .filter_map(|s| {
            let job = s.job.as_ref().filter(|j| j.state == Some(JobState::Held))?;
            Some((s.row.id.as_str(), job.id.as_str()))
        })
        .collect();
    let jobs: Vec<&str> = held.values().copied().collect();
    for some in jobs.chunks(MOST_TASKS) {
        slurm.ask("scontrol", &["release", &some.join(",")])?;
    }
    Ok(held.keys().map(|run| (*run).to_owned()).collect())
}
