//! The local executor: runs of a study as child processes of this machine, the longest first.

use crate::compile::{self, SizeError};
use crate::file::Sweep;
use crate::plan::{Plan, PlannedRun};
use crate::process::{ask_to_stop, spawn_worker};
use crate::status::{self, RunRow, is_done};
use crate::study::{Study, StudyError};
use isoflop_runtime::config::DataConfig;
use isoflop_runtime::rundir::FileError;
use isoflop_runtime::status::State;
use isoflop_runtime::train::{EXIT_CONTINUE, EXIT_DIVERGED, EXIT_FINISHED, EXIT_NOT_OWNER};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks at the children.
const POLL: Duration = Duration::from_millis(20);
/// Time between two readings of the status files.
const REPORT: Duration = Duration::from_millis(250);
/// How long a run that an earlier worker still holds is tried again before it is given up.
const HELD: Duration = Duration::from_secs(60);

/// What the caller of [`run`] decides.
pub struct Options<'a> {
    /// Runs at the same time.
    pub jobs: usize,
    /// Threads of each run; the cores divided by the jobs by default. Results do not depend on it.
    pub threads: Option<usize>,
    /// The program that is started as `PROGRAM train RUN_DIR --threads N`.
    pub worker: PathBuf,
    /// Set it to stop: children save and exit, nothing new is started.
    pub stop: &'a AtomicBool,
}

/// What happens while a study runs. `run` is an index into the plan.
#[derive(Clone, Debug)]
pub enum Event {
    /// Of `runs` runs, `done` were finished or diverged before.
    Found {
        runs: usize,
        done: usize,
    },
    /// This many different training steps are compiled now.
    Compiling {
        steps: usize,
    },
    /// `kernels` of them were compiled now; the others came from the cache.
    Compiled {
        steps: usize,
        kernels: usize,
        seconds: f64,
    },
    Started {
        run: usize,
    },
    /// A newer status of a run that is running.
    Progress {
        run: usize,
        row: RunRow,
    },
    Ended {
        run: usize,
        row: RunRow,
    },
    /// The children were asked to save and stop.
    Stopping {
        children: usize,
    },
}

/// How the runs of the study stand at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub finished: usize,
    pub diverged: usize,
    pub failed: usize,
    /// Interrupted or never started; `isoflop run` goes on with them.
    pub left: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    Compile(#[from] SizeError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot start {}: {source}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
}

/// Brings every run of the plan that is not done to its end. The study must be locked and its plan adopted.
///
/// # Errors
/// When something of the study cannot be read, compiled, written or started. A run that fails is no error: it is
/// counted in the summary.
pub fn run(
    study: &Study,
    sweep: &Sweep,
    plan: &Plan,
    data: &DataConfig,
    options: &Options<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Summary, RunError> {
    let mut queue = prepare(study, sweep, plan, data, on_event)?;
    // The longest start first, so that the last to end is a short one. Taken from the back.
    let cost = |i: &usize| plan.runs[*i].seconds.unwrap_or(plan.runs[*i].flops);
    queue.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(b.cmp(a)));
    let result = Pool { study, plan, options, children: Vec::new(), held: Vec::new() }.work(queue, on_event);
    study.write_runs(plan)?;
    let failures = result?;
    let mut summary = Summary::default();
    for (run, row) in status::rows(study, plan)?.iter().enumerate() {
        match row.state {
            State::Finished => summary.finished += 1,
            State::Diverged => summary.diverged += 1,
            State::Failed => summary.failed += 1,
            _ if failures.contains(&run) => summary.failed += 1,
            _ => summary.left += 1,
        }
    }
    Ok(summary)
}

/// Makes every run directory that is not done ready for `isoflop train`: compiles what has no artifact yet and writes the
/// configurations. Returns those runs. The study must be locked and its plan adopted.
///
/// # Errors
/// As [`run`].
pub fn prepare(
    study: &Study,
    sweep: &Sweep,
    plan: &Plan,
    data: &DataConfig,
    on_event: &mut dyn FnMut(Event),
) -> Result<Vec<usize>, RunError> {
    let before = status::rows(study, plan)?;
    let queue: Vec<usize> = (0..plan.runs.len()).filter(|i| !is_done(before[*i].state)).collect();
    on_event(Event::Found { runs: plan.runs.len(), done: plan.runs.len() - queue.len() });
    study.write_runs(plan)?;
    let steps = compile::steps(&plan.runs);
    let mut artifacts: Vec<Option<PathBuf>> = vec![None; steps.distinct.len()];
    for (run, step) in plan.runs.iter().zip(&steps.of_run) {
        if artifacts[*step].is_none() {
            artifacts[*step] = study.artifact_of(&run.id);
        }
    }
    let mut missing: Vec<usize> =
        queue.iter().map(|run| steps.of_run[*run]).filter(|step| artifacts[*step].is_none()).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        on_event(Event::Compiling { steps: missing.len() });
        let began = Instant::now();
        let compiler = compile::options(&study.artifacts());
        let mut kernels = 0;
        for step in &missing {
            let compiled = compile::artifact(steps.distinct[*step], &compiler)?;
            kernels += compiled.kernels_compiled;
            artifacts[*step] = Some(compiled.artifact.dir);
        }
        on_event(Event::Compiled { steps: missing.len(), kernels, seconds: began.elapsed().as_secs_f64() });
    }
    for run in &queue {
        if let Some(artifact) = &artifacts[steps.of_run[*run]] {
            study.write_config(&plan.runs[*run], sweep, data, artifact)?;
        }
    }
    if !queue.is_empty() {
        study.sync()?;
    }
    Ok(queue)
}

struct Working {
    run: usize,
    child: Child,
    log: PathBuf,
    last: Option<RunRow>,
}

/// A run that an earlier worker, about to end, still owns.
struct Held {
    run: usize,
    since: Instant,
    again: Instant,
}

struct Pool<'a> {
    study: &'a Study,
    plan: &'a Plan,
    options: &'a Options<'a>,
    children: Vec<Working>,
    held: Vec<Held>,
}

impl Pool<'_> {
    /// Works the queue off from its back. Returns runs that failed without saying so in their status.
    fn work(
        mut self,
        mut queue: Vec<usize>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Vec<usize>, RunError> {
        let (mut failures, mut stopping, mut reported) = (Vec::new(), false, Instant::now());
        let mut first_error = None;
        loop {
            if !stopping && (self.options.stop.load(Ordering::Relaxed) || first_error.is_some()) {
                stopping = true;
                self.children.iter().for_each(|w| ask_to_stop(&w.child));
                on_event(Event::Stopping { children: self.children.len() });
            }
            if let Err(e) = self.reap(stopping, &mut failures, on_event) {
                first_error.get_or_insert(e);
            }
            if !stopping && first_error.is_none() {
                let now = Instant::now();
                if let Some(i) = self.held.iter().position(|h| h.again <= now) {
                    self.held[i].again = now + Duration::from_millis(500);
                    queue.push(self.held[i].run);
                }
                while self.children.len() < self.options.jobs.max(1)
                    && let Some(run) = queue.pop()
                {
                    match self.start(run) {
                        Ok(()) => on_event(Event::Started { run }),
                        Err(e) => {
                            first_error.get_or_insert(e);
                            break;
                        }
                    }
                }
            }
            if self.children.is_empty() {
                let nothing_left = queue.is_empty() && self.held.is_empty();
                match first_error {
                    Some(e) => return Err(e),
                    None if stopping || nothing_left => return Ok(failures),
                    None => {}
                }
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                self.report(on_event);
            }
            std::thread::sleep(POLL);
        }
    }

    fn start(&mut self, run: usize) -> Result<(), RunError> {
        let dir = self.study.run_dir(&self.plan.runs[run].id);
        let log = next_log(&dir)?;
        let output = File::create(&log).map_err(|e| FileError::new("create", &log, e))?;
        let errors = output.try_clone().map_err(|e| FileError::new("open", &log, e))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.options.threads.unwrap_or(cores / self.options.jobs.max(1)).max(1);
        let mut command = Command::new(&self.options.worker);
        command.arg("train").arg(&dir).arg("--threads").arg(threads.to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn_worker(&mut command)
            .map_err(|source| RunError::Start { program: self.options.worker.clone(), source })?;
        self.children.push(Working { run, child, log, last: None });
        Ok(())
    }

    /// Takes leave of children that ended.
    fn reap(
        &mut self,
        stopping: bool,
        failures: &mut Vec<usize>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<(), RunError> {
        let mut i = 0;
        while i < self.children.len() {
            let wait = self.children[i].child.try_wait();
            let Some(exit) = wait.map_err(|e| FileError::new("wait for", &self.options.worker, e))? else {
                i += 1;
                continue;
            };
            let worker = self.children.swap_remove(i);
            let run = worker.run;
            if exit.code() == Some(EXIT_NOT_OWNER) && self.try_again(run) {
                continue;
            }
            self.held.retain(|h| h.run != run);
            let mut row = status::row(self.study, &self.plan.runs[run])?;
            // A worker that was asked to stop before it could listen ends by the signal, with nothing begun.
            let unheard = stopping && matches!(exit.signal(), Some(libc::SIGTERM | libc::SIGINT));
            if let Some(reason) = complaint(exit, &row, &worker.log).filter(|_| !unheard) {
                (row.state, row.reason) = (State::Failed, Some(reason));
                failures.push(run);
            }
            self.study.write_runs(self.plan)?;
            on_event(Event::Ended { run, row });
        }
        Ok(())
    }

    /// Notes that somebody else owns a run; false once that has lasted too long.
    fn try_again(&mut self, run: usize) -> bool {
        let now = Instant::now();
        match self.held.iter().find(|h| h.run == run) {
            Some(held) => held.since.elapsed() < HELD,
            None => {
                self.held.push(Held { run, since: now, again: now + Duration::from_millis(200) });
                true
            }
        }
    }

    fn report(&mut self, on_event: &mut dyn FnMut(Event)) {
        for worker in &mut self.children {
            // A status that cannot be read now is read when the run ends.
            let Ok(row) = status::row(self.study, &self.plan.runs[worker.run]) else { continue };
            if worker.last.as_ref() != Some(&row) {
                worker.last = Some(row.clone());
                on_event(Event::Progress { run: worker.run, row });
            }
        }
    }
}

/// Why an ended worker counts as failed although its status does not say so.
fn complaint(exit: ExitStatus, row: &RunRow, log: &Path) -> Option<String> {
    let agrees = match exit.code() {
        Some(EXIT_FINISHED) => row.state == State::Finished,
        Some(EXIT_DIVERGED) => row.state == State::Diverged,
        Some(EXIT_CONTINUE) => row.state == State::Interrupted,
        _ => row.state == State::Failed,
    };
    if agrees {
        return None;
    }
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last =
        said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned();
    Some(format!("the worker ended with {exit} ({last}); see {}", log.display()))
}

/// `logs/<attempt>/worker.log` of the next attempt.
fn next_log(run_dir: &Path) -> Result<PathBuf, FileError> {
    let logs = run_dir.join("logs");
    let mut attempt = 1;
    while logs.join(attempt.to_string()).exists() {
        attempt += 1;
    }
    let dir = logs.join(attempt.to_string());
    std::fs::create_dir_all(&dir).map_err(|e| FileError::new("create", &dir, e))?;
    Ok(dir.join("worker.log"))
}

/// The runs of a plan that a run of `jobs` at a time takes, as a prediction in seconds.
pub fn predicted_seconds(runs: &[PlannedRun], jobs: usize) -> Option<f64> {
    let mut seconds: Vec<f64> = runs.iter().map(|r| r.seconds).collect::<Option<_>>()?;
    seconds.sort_by(|a, b| b.total_cmp(a));
    let mut ends = vec![0.0f64; jobs.max(1)];
    for s in seconds {
        if let Some(first) = ends.iter_mut().min_by(|a, b| a.total_cmp(b)) {
            *first += s;
        }
    }
    ends.into_iter().reduce(f64::max)
}
