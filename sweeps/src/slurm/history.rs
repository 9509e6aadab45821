//! The journal as a whole: which calls of sbatch there were, which run is which task, and what was asked of each run.

use super::SlurmError;
use super::journal::{self, Intent, Record};
use super::parse::TaskId;
use super::policy::Cause;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What became of one call of sbatch.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// The journal does not say: a process died, or the answer was lost.
    Open,
    Submitted {
        job: u64,
    },
    /// Refused or found absent: there is no such job.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub intent: Intent,
    pub fate: Fate,
}

/// Everything that the journal says.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub batches: Vec<Batch>,
    /// For each run the batches with a job that it is in, oldest first, each with its index there.
    tasks: HashMap<String, Vec<(usize, u32)>>,
    /// Runs that a person cancelled after they were submitted last.
    cancelled: HashSet<String>,
    /// For each run how often it was submitted again, by cause, since a person last wanted it tried again.
    times: HashMap<String, HashMap<Cause, usize>>,
    /// For each run how often it was given more memory, ever.
    memory: HashMap<String, usize>,
}

impl History {
    /// Of the study; empty where nothing was ever submitted.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn read(study: &Path) -> Result<Option<History>, SlurmError> {
        Ok(journal::read(study)?.map(|records| History::of(&records)))
    }

    pub fn of(records: &[Record]) -> History {
        let mut history = History::default();
        let mut by_tag: HashMap<&str, usize> = HashMap::new();
        for record in records {
            match record {
                Record::Opened { .. } => {}
                Record::Intent(intent) => {
                    by_tag.insert(&intent.tag, history.batches.len());
                    history.batches.push(Batch { intent: intent.clone(), fate: Fate::Open });
                }
                Record::Submitted { tag, job, .. } => {
                    if let Some(index) = by_tag.get(tag.as_str()) {
                        history.submitted(*index, *job);
                    }
                }
                Record::Refused { tag, .. } | Record::Absent { tag } => {
                    if let Some(index) = by_tag.get(tag.as_str()) {
                        history.batches[*index].fate = Fate::Nothing;
                    }
                }
                Record::Cancelled { runs, .. } => history.cancelled.extend(runs.iter().cloned()),
                Record::Retried { runs, .. } => {
                    for run in runs {
                        history.cancelled.remove(run);
                        history.times.remove(run);
                    }
                }
            }
        }
        history
    }

    fn submitted(&mut self, index: usize, job: u64) {
        self.batches[index].fate = Fate::Submitted { job };
        let intent = &self.batches[index].intent;
        for (task, run) in (0u32..).zip(&intent.runs) {
            self.tasks.entry(run.clone()).or_default().push((index, task));
            self.cancelled.remove(run);
        }
        for (run, cause) in &intent.causes {
            *self.times.entry(run.clone()).or_default().entry(*cause).or_default() += 1;
            if *cause == Cause::OutOfMemory {
                *self.memory.entry(run.clone()).or_default() += 1;
            }
        }
    }

    /// Batches whose outcome the journal does not have.
    pub fn open(&self) -> impl Iterator<Item = &Intent> {
        self.batches.iter().filter(|b| b.fate == Fate::Open).map(|b| &b.intent)
    }

    /// Every task that a run is or was, oldest first: its batch, its index there, and its number with Slurm.
    pub fn tasks<'h>(&'h self, run: &str) -> impl DoubleEndedIterator<Item = (&'h Intent, TaskId)> {
        self.tasks.get(run).into_iter().flatten().filter_map(|(batch, index)| {
            let Batch { intent, fate } = &self.batches[*batch];
            match fate {
                Fate::Submitted { job } => Some((intent, (*job, *index))),
                _ => None,
            }
        })
    }

    /// True where a person took the run out of the queue and nobody put it back.
    pub fn is_cancelled(&self, run: &str) -> bool {
        self.cancelled.contains(run)
    }

    /// How often the run was submitted again for this cause.
    pub fn times(&self, run: &str, cause: Cause) -> usize {
        self.times.get(run).and_then(|t| t.get(&cause)).copied().unwrap_or(0)
    }

    /// How often the run was given more memory than its job before had.
    pub fn more_memory(&self, run: &str) -> usize {
        self.memory.get(run).copied().unwrap_or(0)
    }
}
