//! A study directory: the sweep it belongs to, its plan, artifacts, run directories and runs.csv.
//!
//! ```text
//! <study>/sweep.toml  plan.json  runs.csv  artifacts/<hash>/  runs/<id>/  study.lock
//! ```

use crate::file::Sweep;
use crate::fit::{FitError, RunRecord, write_runs};
use crate::plan::{Plan, PlannedRun};
use crate::status::{self, RunRow};
use isoflop_runtime::config::{DataConfig, RunConfig};
use isoflop_runtime::rundir::{FileError, RunDir, RunDirError, replace};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Paths of one study.
#[derive(Clone, Debug)]
pub struct Study {
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Runs(#[from] FitError),
    #[error("{} is not a study: it has no plan.json; `isoflop run SWEEP.toml --out {}` makes one", dir.display(), dir.display())]
    NotAStudy { dir: PathBuf },
    #[error("{}: {message}; remove the file and start `isoflop run` again", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error(
        "{} belongs to another sweep:\n{}\nOnly [executor], [fit] and [plan] device may change: give the new sweep a \
         directory of its own, or take the changes back",
        dir.display(), changes.join("\n")
    )]
    Changed { dir: PathBuf, changes: Vec<String> },
    #[error(
        "{} was written for another text or by another version of isoflop:\n{}\nFinish the study with the same text \
         (`data.fingerprint` names it) and version, or give this one a directory of its own",
        path.display(), changes.join("\n")
    )]
    OtherVersion { path: PathBuf, changes: Vec<String> },
    #[error(
        "{} holds {}, and this command would make it {}: give this one a directory of its own",
        dir.display(), kind(old), kind(new)
    )]
    OtherKind { dir: PathBuf, old: Option<String>, new: Option<String> },
    #[error(
        "another isoflop works on {}; wait for it or stop it with Ctrl-C (`isoflop status` shows its runs)",
        dir.display()
    )]
    Busy { dir: PathBuf },
}

fn kind(cluster: &Option<String>) -> String {
    cluster.as_ref().map_or("runs on CPUs".into(), |name| format!("layouts for the cluster `{name}`"))
}

/// The right to run a study, given up when dropped or when the process ends in whatever way.
#[derive(Debug)]
pub struct StudyLock {
    _file: File,
}

impl Study {
    pub fn new(dir: impl Into<PathBuf>) -> Study {
        Study { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn sweep_file(&self) -> PathBuf {
        self.dir.join("sweep.toml")
    }

    pub fn plan_file(&self) -> PathBuf {
        self.dir.join("plan.json")
    }

    pub fn runs_file(&self) -> PathBuf {
        self.dir.join("runs.csv")
    }

    pub fn artifacts(&self) -> PathBuf {
        self.dir.join("artifacts")
    }

    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.dir.join("runs").join(id)
    }

    /// Takes the study for this process.
    ///
    /// # Errors
    /// [`StudyError::Busy`] while another process has it.
    pub fn lock(&self) -> Result<StudyLock, StudyError> {
        make_dir(&self.dir)?;
        let path = self.dir.join("study.lock");
        let file = File::create(&path).map_err(|e| FileError::new("create", &path, e))?;
        // A worker that a killed `isoflop run` was just starting holds its lock for some milliseconds more.
        for attempt in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(StudyLock { _file: file }),
                Err(TryLockError::WouldBlock) if attempt + 1 < LOCK_ATTEMPTS => {
                    std::thread::sleep(LOCK_PAUSE)
                }
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(e)) => return Err(FileError::new("lock", &path, e).into()),
            }
        }
        Err(StudyError::Busy { dir: self.dir.clone() })
    }

    /// Writes the sweep file and the plan, or checks that they agree with those already here.
    ///
    /// # Errors
    /// [`StudyError::Changed`] where the directory holds a different sweep.
    pub fn adopt(&self, sweep_text: &str, plan: &Plan) -> Result<(), StudyError> {
        let path = self.sweep_file();
        if let Some(old) = read_if_there(&path)? {
            let changes = differences(&path, &old, sweep_text)?;
            if !changes.is_empty() {
                return Err(StudyError::Changed { dir: self.dir.clone(), changes });
            }
        }
        if let Some(old) = read_if_there(&self.plan_file())? {
            // Only this key: whatever else there is may be of another version, and is written anew.
            let old: serde_json::Value = serde_json::from_str(&old).unwrap_or_default();
            let (old, new) = (old["cluster"].as_str().map(str::to_owned), plan.cluster.clone());
            if old != new {
                return Err(StudyError::OtherKind { dir: self.dir.clone(), old, new });
            }
        }
        make_dir(&self.dir.join("runs"))?;
        make_dir(&self.artifacts())?;
        let mut json = serde_json::to_vec_pretty(plan)
            .map_err(|e| StudyError::Syntax { path: self.plan_file(), message: e.to_string() })?;
        json.push(b'\n');
        replace(&self.plan_file(), &json, true)?;
        Ok(replace(&path, sweep_text.as_bytes(), true)?)
    }

    /// Reads the plan of a study that exists.
    ///
    /// # Errors
    /// Where there is no plan or it cannot be read.
    pub fn read_plan(&self) -> Result<Plan, StudyError> {
        let path = self.plan_file();
        let text = read_if_there(&path)?.ok_or_else(|| StudyError::NotAStudy { dir: self.dir.clone() })?;
        serde_json::from_str(&text).map_err(|e| StudyError::Syntax { path, message: e.to_string() })
    }

    /// The artifact that a run was given earlier, where both still exist.
    pub fn artifact_of(&self, id: &str) -> Option<PathBuf> {
        let run = RunDir::new(self.run_dir(id));
        let artifact = run.resolve(&run.read_config().ok()?.artifact);
        artifact.join("manifest.json").is_file().then_some(artifact)
    }

    /// Writes the run's config.toml, or checks that the one already there says the same. It is sure to be on the disk after
    /// [`Study::sync`] only: one wait for thousands of runs.
    ///
    /// # Errors
    /// [`StudyError::OtherVersion`] where it does not.
    pub fn write_config(
        &self,
        run: &PlannedRun,
        sweep: &Sweep,
        data: &DataConfig,
        artifact: &Path,
    ) -> Result<(), StudyError> {
        let dir = RunDir::new(self.run_dir(&run.id));
        let config = run_config(run, sweep, data, artifact);
        let path = dir.config();
        let text = toml::to_string(&config)
            .map_err(|e| StudyError::Syntax { path: path.clone(), message: e.to_string() })?;
        if let Some(old) = read_if_there(&path)? {
            if old == text {
                return Ok(());
            }
            let changes = differences(&path, &old, &text)?;
            if !changes.is_empty() {
                return Err(StudyError::OtherVersion { path, changes });
            }
        }
        make_dir(dir.root())?;
        Ok(replace(&path, text.as_bytes(), false)?)
    }

    /// Waits until everything that was written into the study's file system is on the disk.
    ///
    /// # Errors
    /// When the disk reports that something could not be written.
    pub fn sync(&self) -> Result<(), FileError> {
        let dir = File::open(&self.dir).map_err(|e| FileError::new("open", &self.dir, e))?;
        // SAFETY: syncfs only reads the descriptor, which `dir` keeps open.
        match unsafe { libc::syncfs(dir.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(FileError::new("sync", &self.dir, std::io::Error::last_os_error())),
        }
    }

    /// Writes runs.csv from where every run stands, in the order of the plan.
    ///
    /// # Errors
    /// When a status cannot be read or the file not be written.
    pub fn write_runs(&self, plan: &Plan) -> Result<(), StudyError> {
        let rows = status::rows(self, plan)?;
        let records: Vec<RunRecord> =
            plan.runs.iter().zip(&rows).map(|(run, row)| record(run, row)).collect();
        Ok(write_runs(self.runs_file(), &records)?)
    }
}

fn record(run: &PlannedRun, row: &RunRow) -> RunRecord {
    RunRecord {
        id: run.id.clone(),
        size: run.size.clone(),
        status: row.outcome(),
        params: run.params as f64,
        params_non_embedding: Some(run.params_non_embedding as f64),
        tokens: run.tokens as f64,
        flops: run.flops,
        flops_convention: run.flops_convention.name().to_owned(),
        budget: run.budget,
        seed: Some(run.seed),
        train_loss: row.train_loss,
        validation_loss: row.validation_loss,
        reason: row.reason.clone().unwrap_or_default(),
    }
}

/// The resolved configuration of one run. `artifact` lies in the study's `artifacts`.
fn run_config(run: &PlannedRun, sweep: &Sweep, data: &DataConfig, artifact: &Path) -> RunConfig {
    let train = &sweep.train;
    let hash = artifact.file_name().unwrap_or_default();
    RunConfig {
        id: run.id.clone(),
        artifact: Path::new("../../artifacts").join(hash),
        seed: run.seed,
        steps: run.steps,
        batch: run.batch,
        seq_len: run.model.seq_len,
        vocab_size: run.model.vocab_size,
        schedule: run.schedule.clone(),
        betas: run.optimizer.betas,
        data: data.clone(),
        validate_every: run.steps.div_ceil(train.validations).max(1),
        checkpoint_every: run.steps.div_ceil(train.checkpoints).max(1),
        keep_checkpoints: train.keep_checkpoints,
        flops_per_token: run.flops_per_token,
        flops_convention: run.flops_convention.name().to_owned(),
        peak_flops: run.peak_flops,
        // The executor says how many; this is for starting the run by hand.
        threads: 1,
        diverged_above: train.diverged_above.unwrap_or(3.0 * (run.model.vocab_size as f64).ln()),
        tensorboard: train.tensorboard,
    }
}

fn make_dir(dir: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(dir).map_err(|e| FileError::new("create", dir, e))
}

fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", path, e)),
    }
}

/// How often, and how long apart, a lock is asked for before its study counts as busy.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Keys that may change between two starts of one study, because no result depends on them.
const FREE: [&str; 5] = ["executor", "fit", "peak_flops", "plan.device", "threads"];

/// Keys in which two TOML texts differ, one line each: `plan.flops: [1e11] -> [1e12]`.
fn differences(path: &Path, old: &str, new: &str) -> Result<Vec<String>, StudyError> {
    let flat = |text: &str| {
        let table: toml::Table = toml::from_str(text)
            .map_err(|e| StudyError::Syntax { path: path.to_owned(), message: e.to_string() })?;
        let mut keys = BTreeMap::new();
        flatten("", &toml::Value::Table(table), &mut keys);
        Ok::<_, StudyError>(keys)
    };
    let (old, new) = (flat(old)?, flat(new)?);
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let free = |key: &str| {
        FREE.iter().any(|f| key.strip_prefix(f).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let shown = |value: Option<&String>| value.map_or("(absent)", String::as_str).to_owned();
    Ok(names
        .into_iter()
        .filter(|key| !free(key) && old.get(*key) != new.get(*key))
        .map(|key| format!("  {key}: {} -> {}", shown(old.get(key)), shown(new.get(key))))
        .collect())
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, inner, out);
            }
        }
        other => drop(out.insert(prefix.to_owned(), other.to_string())),
    }
}
