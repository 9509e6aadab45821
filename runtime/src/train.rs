//! The training loop: takes a run directory from wherever it stands to its end, or to the next stop.
//!
//! Everything that decides a number comes from `config.toml`, the artifact and the data. A run that is killed and
//! started again ends with the same `metrics.csv` and the same last checkpoint, byte for byte, as one that was not.

mod attempt;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::exec::ExecError;
use crate::lease::{Lease, LeaseError};
use crate::metrics::MetricsError;
use crate::rundir::{FileError, RunDir, RunDirError};
use crate::status::{RunStatus, State};
use attempt::{Attempt, Start};
use isoflop_kernels::artifact::ArtifactError;
use isoflop_kernels::footprint::Base;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code of a worker whose run is finished.
pub const EXIT_FINISHED: i32 = 0;
/// Exit code of a worker that failed: the error is printed and stands in `status.json`. Starting it again may help.
pub const EXIT_FAILED: i32 = 1;
/// Exit code of a worker that saved and stopped on request: start it again to go on. EX_TEMPFAIL of sysexits.h.
pub const EXIT_CONTINUE: i32 = 75;
/// Exit code of a worker whose run diverged: starting it again changes nothing.
pub const EXIT_DIVERGED: i32 = 76;
/// Exit code of a worker that found, or was replaced by, another owner of the run: leave the run to that one.
pub const EXIT_NOT_OWNER: i32 = 77;

/// How a call of [`train`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// Stopped on request after saving.
    Interrupted,
    /// The loss of optimiser step `step` (1-based) was too high or not finite.
    Diverged {
        step: u64,
    },
}

impl Outcome {
    pub fn exit_code(self) -> i32 {
        match self {
            Outcome::Finished => EXIT_FINISHED,
            Outcome::Interrupted => EXIT_CONTINUE,
            Outcome::Diverged { .. } => EXIT_DIVERGED,
        }
    }
}

/// What the caller of [`train`] decides.
pub struct Options<'a> {
    /// Instead of the configuration's number. Results do not depend on it.
    pub threads: Option<usize>,
    /// Set it, from a signal handler for instance, to stop after the step that is running; see [`stop_on_signals`].
    pub stop: Arc<AtomicBool>,
    /// Stop after this many steps of this call.
    pub stop_after_steps: Option<u64>,
    /// What this program takes itself, for the planned peak in `status.json`.
    pub base: Base,
    /// Called with every new content of `status.json`.
    pub progress: &'a mut dyn FnMut(&RunStatus),
    /// Called with one line for each thing a person should know that does not stop the run.
    pub warn: &'a mut dyn FnMut(&str),
}

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(
        "{}: program `{program}` {found}, the run needs {expected}: the artifact was compiled for another run; plan \
         and compile again",
        path.display()
    )]
    Mismatch { path: PathBuf, program: &'static str, found: String, expected: String },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
}

impl TrainError {
    /// True where the run belongs to somebody else.
    pub fn is_not_owner(&self) -> bool {
        matches!(
            self,
            TrainError::Lease(
                LeaseError::Held { .. }
                    | LeaseError::HeldByUnknown { .. }
                    | LeaseError::Lost { .. }
                    | LeaseError::LostFile { .. }
            )
        )
    }

    pub fn exit_code(&self) -> i32 {
        if self.is_not_owner() { EXIT_NOT_OWNER } else { EXIT_FAILED }
    }
}

/// A flag that SIGTERM, SIGINT and SIGUSR2 set from now on, for [`Options::stop`].
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, TrainError> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGUSR2] {
        signal_hook::flag::register(signal, stop.clone()).map_err(TrainError::Signals)?;
    }
    Ok(stop)
}

/// Trains the run in `run_dir` until it is finished, diverged or told to stop. A run that is finished or diverged
/// already is left as it is.
pub fn train(run_dir: &Path, options: Options<'_>) -> Result<Outcome, TrainError> {
    let run = RunDir::new(run_dir);
    let config = run.read_config()?;
    let Options { threads, stop, stop_after_steps, base, progress, warn } = options;
    if let (_, Some(outcome)) = standing(&run, warn)? {
        return Ok(outcome);
    }
    let lease = Lease::acquire(run_dir)?;
    // Again: the owner before us may have finished it in between.
    let (mut status, outcome) = standing(&run, warn)?;
    if let Some(outcome) = outcome {
        return Ok(outcome);
    }
    (status.steps, status.reason, status.tokens_per_s) = (config.steps, None, 0.0);
    let start = Start { run: &run, config: &config, lease: &lease, threads, base };
    let result = Attempt::start(start, &mut status, progress, warn)
        .and_then(|attempt| attempt.run(&stop, stop_after_steps));
    if let Err(e) = &result
        && !e.is_not_owner()
        && lease.check().is_ok()
    {
        (status.state, status.reason) = (State::Failed, Some(e.to_string().replace('\n', " ")));
        // The error to report is the first one.
        let _ = run.write_status(&status, true);
        progress(&status);
    }
    result
}

/// Where the run stands, and its outcome if there is nothing left to do.
fn standing(run: &RunDir, warn: &mut dyn FnMut(&str)) -> Result<(RunStatus, Option<Outcome>), TrainError> {
    let status = match run.read_status() {
        // Ends of runs are written durably: what cannot be read was only progress, cut off by a loss of power.
        Err(e @ RunDirError::Status { .. }) => {
            warn(&format!("going on from the newest checkpoint: {e}"));
            RunStatus::pending()
        }
        other => other?,
    };
    let outcome = match status.state {
        State::Finished => Some(Outcome::Finished),
        State::Diverged => Some(Outcome::Diverged { step: status.step }),
        State::Pending | State::Running | State::Interrupted | State::Failed | State::Checked => None,
    };
    Ok((status, outcome))
}
