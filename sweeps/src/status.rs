//! Where the runs of a study stand: the table of `isoflop status`, and the rows of runs.csv.

use crate::fit::RunStatus as Outcome;
use crate::plan::{Plan, PlannedRun};
use crate::study::{Study, StudyError};
use isoflop_runtime::lease::read_owner;
use isoflop_runtime::rundir::RunDir;
use isoflop_runtime::status::{MemoryStatus, RunStatus, State};
use serde::Serialize;
use std::path::Path;

/// One run of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRow {
    pub id: String,
    pub size: String,
    pub state: State,
    pub step: u64,
    pub steps: u64,
    pub train_loss: Option<f64>,
    pub validation_loss: Option<f64>,
    pub tokens_per_s: f64,
    /// Planned and measured, of the newest process that trained it.
    pub memory: Option<MemoryStatus>,
    /// The longest that writing a checkpoint took.
    pub save_seconds: Option<f64>,
    pub reason: Option<String>,
}

impl RunRow {
    /// The state in the words of runs.csv, which is about results and knows no running.
    pub fn outcome(&self) -> Outcome {
        match self.state {
            State::Pending | State::Checked => Outcome::Pending,
            State::Running | State::Interrupted => Outcome::Interrupted,
            State::Finished => Outcome::Finished,
            State::Diverged => Outcome::Diverged,
            State::Failed => Outcome::Failed,
        }
    }
}

/// True where nothing is left to do for a run; of one that is only to be checked, where it was.
pub fn is_done(state: State) -> bool {
    matches!(state, State::Finished | State::Diverged | State::Checked)
}

/// The rows of all runs, in the order of the plan.
///
/// # Errors
/// When a status file cannot be read.
pub fn rows(study: &Study, plan: &Plan) -> Result<Vec<RunRow>, StudyError> {
    plan.runs.iter().map(|run| row(study, run)).collect()
}

/// The row of one run. A run whose status says `running` while its worker is gone is `interrupted`.
///
/// # Errors
/// When the status file cannot be read.
pub fn row(study: &Study, run: &PlannedRun) -> Result<RunRow, StudyError> {
    let dir = study.run_dir(&run.id);
    let status = RunDir::new(&dir).read_status()?;
    let RunStatus {
        state,
        step,
        train_loss,
        validation_loss,
        reason,
        tokens_per_s,
        memory,
        save_seconds,
        ..
    } = status;
    let gone = state == State::Running && !has_worker(&dir);
    Ok(RunRow {
        id: run.id.clone(),
        size: run.size.clone(),
        state: if gone { State::Interrupted } else { state },
        step,
        steps: run.steps,
        train_loss,
        validation_loss,
        tokens_per_s,
        memory,
        save_seconds,
        reason: if gone {
            Some("its worker is gone; it goes on from its last checkpoint".into())
        } else {
            reason
        },
    })
}

/// False only where the owner of a run directory was a process of this machine that has ended.
fn has_worker(run_dir: &Path) -> bool {
    let Ok(Some(owner)) = read_owner(run_dir) else { return true };
    let text = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default();
    let here = text("/proc/sys/kernel/hostname");
    if owner.host != here {
        return true;
    }
    owner.boot_id == text("/proc/sys/kernel/random/boot_id")
        && Path::new("/proc").join(owner.pid.to_string()).exists()
}
