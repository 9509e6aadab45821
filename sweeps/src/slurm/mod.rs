//! The Slurm executor: the runs of a study as jobs of a cluster. Nothing else in isoflop runs a command of Slurm's.
//!
//! ```text
//! <study>/slurm/journal.jsonl   what was asked of Slurm
//!               <tag>/          of one call of sbatch: job.sh, runs, worker, and of each task N.out and N.attempts
//! ```
//!
//! A job is found again by the tag in its name, so that no crash loses or doubles one. Whatever happens in the queue, the
//! lease of a run directory lets one process write.

pub mod cancel;
pub mod command;
pub mod explain;
pub mod history;
pub mod journal;
pub mod layouts;
pub mod ledger;
pub mod nodes;
pub mod parse;
pub mod policy;
pub mod probe;
pub mod resources;
pub mod script;
pub mod standing;
pub mod submit;
pub mod time;
pub mod view;

use crate::study::{Study, StudyError};
use command::CommandError;
use isoflop_runtime::rundir::FileError;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{}:{line}: this is no record of a submission: {message}", path.display())]
    Journal { path: PathBuf, line: usize, message: String },
    #[error(
        "{}: process {pid} on {host} took the journal after us; we stopped, and every job that we submitted is in it",
        path.display()
    )]
    Replaced { path: PathBuf, host: String, pid: u32 },
    #[error(
        "{} belongs to user {owner}, and this process to user {ours}: jobs are submitted by the owner of a study only; \
         copy it, or take a directory of your own with --out",
        path.display()
    )]
    OtherUser { path: PathBuf, owner: u32, ours: u32 },
    #[error("`executor.partition` is `{found}`, which this cluster does not have; it has: {known}")]
    Partition { found: String, known: String },
    #[error("this cluster has no default partition; set `executor.partition` to one of: {known}")]
    NoPartition { known: String },
    #[error("partition {name} takes no jobs: it is {state}")]
    PartitionClosed { name: String, state: String },
    #[error(
        "sbatch printed `{said}` where a job number was expected; `isoflop submit` again finds out what became of it"
    )]
    NoJobNumber { said: String },
    #[error("{what}: {source}; nothing was submitted twice or lost, the same command goes on from here")]
    Submit { what: String, source: CommandError },
    #[error(transparent)]
    Layout(#[from] isoflop_runtime::layout::LayoutError),
    #[error("the study has no run `{found}`; it has: {known}")]
    NoRun { found: String, known: String },
    #[error("{} was never submitted to Slurm: `isoflop submit SWEEP.toml --out {}` does", dir.display(), dir.display())]
    NeverSubmitted { dir: PathBuf },
    #[error("what became of jobs that have left the queue is not known now: {said}; try again later")]
    Incomplete { said: String },
}

impl SlurmError {
    /// True where Slurm did not answer, and may later.
    pub fn is_away(&self) -> bool {
        match self {
            SlurmError::Command(e) | SlurmError::Submit { source: e, .. } => e.is_away(),
            SlurmError::Incomplete { .. } => true,
            _ => false,
        }
    }
}

/// Refuses the directory of another user: jobs run as whoever submits, and write as that user.
///
/// # Errors
/// [`SlurmError::OtherUser`]. A directory that is not there yet is no error.
pub fn check_owner(dir: &Path) -> Result<(), SlurmError> {
    let ours = probe::user_id();
    for path in [dir.to_owned(), dir.join("slurm"), journal::path(dir)] {
        match std::fs::metadata(&path) {
            Ok(found) if found.uid() != ours => {
                return Err(SlurmError::OtherUser { path, owner: found.uid(), ours });
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(FileError::new("look at", &path, e).into()),
        }
    }
    Ok(())
}

/// The absolute path of a study, which is the working directory of its jobs.
///
/// # Errors
/// When it is not there.
pub fn absolute(study: &Study) -> Result<Study, SlurmError> {
    let dir = std::fs::canonicalize(study.dir()).map_err(|e| FileError::new("find", study.dir(), e))?;
    Ok(Study::new(dir))
}

/// The names that are among a study's runs, or all of them where none is given.
///
/// # Errors
/// [`SlurmError::NoRun`].
pub fn named<'p>(plan: &'p crate::plan::Plan, names: &[String]) -> Result<Vec<&'p str>, SlurmError> {
    let known = || plan.runs.iter().map(|r| r.id.as_str());
    if names.is_empty() {
        return Ok(known().collect());
    }
    let find = |name: &String| {
        known().find(|id| id == name).ok_or_else(|| {
            let mut list: Vec<&str> = known().take(20).collect();
            if plan.runs.len() > list.len() {
                list.push("...");
            }
            SlurmError::NoRun { found: name.clone(), known: list.join(", ") }
        })
    };
    names.iter().map(find).collect()
}
