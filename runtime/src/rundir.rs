//! The layout of a run directory, and the few file operations everything durable in it is made of.

use crate::config::RunConfig;
use crate::status::RunStatus;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file operation that failed: what was tried, on which path, and what usually helps.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
pub struct FileError {
    /// Infinitive, e.g. `write`.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> FileError {
        FileError { action, path: path.to_path_buf(), source }
    }

    /// True where space, quota or a file size limit ran out.
    pub fn is_out_of_space(&self) -> bool {
        out_of_space(&self.source)
    }
}

fn out_of_space(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn hint(e: &io::Error) -> &'static str {
    if out_of_space(e) {
        "; nothing written before was touched: free space or raise the limit, then start the same command again"
    } else if e.kind() == io::ErrorKind::PermissionDenied {
        "; check who owns it and its mode"
    } else {
        ""
    }
}

/// Adds the path and the action to an I/O error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|e| FileError::new(action, path, e))
    }
}

/// Why a file of a run directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{}: {message}\nThis file is written by `isoflop plan`: plan again rather than editing it by hand",
        path.display()
    )]
    Config { path: PathBuf, message: String },
    #[error(
        "{}: {message}\nThe file is only a report: remove it and start the run again, it continues from its \
         newest checkpoint",
        path.display()
    )]
    Status { path: PathBuf, message: String },
}

/// Paths of one run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    pub fn new(root: impl Into<PathBuf>) -> RunDir {
        RunDir { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Of a run on GPUs: how it is spread over them.
    pub fn layout(&self) -> PathBuf {
        self.root.join("layout.toml")
    }

    pub fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }

    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.csv")
    }

    /// Units and conventions of the columns of `metrics.csv` and `timings.csv`.
    pub fn metrics_sidecar(&self) -> PathBuf {
        self.root.join("metrics.json")
    }

    pub fn timings(&self) -> PathBuf {
        self.root.join("timings.csv")
    }

    /// Where one step's time went, launch by launch.
    pub fn profile(&self) -> PathBuf {
        self.root.join("profile.csv")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// `path` of the configuration, which may be relative to the run directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Reads and checks `config.toml`.
    pub fn read_config(&self) -> Result<RunConfig, RunDirError> {
        let path = self.config();
        let text = fs::read_to_string(&path).at("read", &path)?;
        let config: RunConfig = toml::from_str(&text)
            .map_err(|e| RunDirError::Config { path: path.clone(), message: e.to_string() })?;
        match complaint(&config) {
            Some(message) => Err(RunDirError::Config { path, message }),
            None => Ok(config),
        }
    }

    /// Reads `status.json`; a run directory without one is pending.
    pub fn read_status(&self) -> Result<RunStatus, RunDirError> {
        let path = self.status();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(RunStatus::pending()),
            Err(e) => return Err(FileError::new("read", &path, e).into()),
        };
        serde_json::from_slice(&bytes).map_err(|e| RunDirError::Status { path, message: e.to_string() })
    }

    /// Replaces `status.json`. `durable` also waits for the disk: for changes of state, not for progress.
    pub fn write_status(&self, status: &RunStatus, durable: bool) -> Result<(), RunDirError> {
        let path = self.status();
        let mut json = serde_json::to_vec_pretty(status)
            .map_err(|e| RunDirError::Status { path: path.clone(), message: e.to_string() })?;
        json.push(b'\n');
        Ok(replace(&path, &json, durable)?)
    }
}

/// What is wrong with the numbers of a configuration, if anything.
fn complaint(c: &RunConfig) -> Option<String> {
    let least_one = [
        ("steps", c.steps),
        ("batch", c.batch as u64),
        ("seq_len", c.seq_len as u64),
        ("vocab_size", c.vocab_size as u64),
        ("validate_every", c.validate_every),
        ("checkpoint_every", c.checkpoint_every),
        ("keep_checkpoints", c.keep_checkpoints as u64),
        ("threads", c.threads as u64),
    ];
    if let Some((key, _)) = least_one.iter().find(|(_, v)| *v == 0) {
        return Some(format!("`{key}` is 0; at least 1 is needed"));
    }
    if let Some(beta) = c.betas.iter().find(|b| !(0.0..1.0).contains(*b)) {
        return Some(format!("`betas` holds {beta}; allowed are numbers from 0 up to, not including, 1"));
    }
    if !c.schedule.lr.is_finite() || c.schedule.lr < 0.0 {
        return Some(format!(
            "`schedule.lr` is {}; a finite number that is not negative is needed",
            c.schedule.lr
        ));
    }
    if c.data.train.is_empty() {
        return Some("`data.train` names no file; at least one shard is needed".into());
    }
    if c.data.validation_sequences > 0 && c.data.validation.is_empty() {
        return Some("`data.validation` names no file although `validation_sequences` is not 0".into());
    }
    None
}

/// Replaces `path` as a whole: a reader, or a kill at any instant, sees the old bytes or the new ones.
/// `durable` waits until both the bytes and the new name are on the disk.
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), FileError> {
    let temporary = temporary_name(path);
    let written = (|| {
        let mut file = File::create(&temporary).at("write", path)?;
        file.write_all(bytes).at("write", path)?;
        if durable {
            file.sync_all().at("sync", path)?;
        }
        fs::rename(&temporary, path).at("replace", path)
    })();
    if let Err(e) = written {
        // The old file is whole; a temporary one that cannot be removed does no harm.
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    if durable { sync_parent(path) } else { Ok(()) }
}

/// A name beside `path` that no reader looks at, its own for every process.
pub fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}{}", std::process::id()))
}

const TEMPORARY: &str = ".tmp-";

/// Removes what killed processes left under temporary names in `dir`, which must have no other writer.
pub(crate) fn sweep_temporary(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.contains(TEMPORARY) {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}

/// Waits until the names in `dir` are on the disk.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|d| d.sync_all()).at("sync", dir)
}

/// Waits until the name of `path` is on the disk.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Opens `path` for appending, made if it is not there.
pub(crate) fn open_append(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().create(true).append(true).open(path).at("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::State;

    #[test]
    fn missing_status_is_pending_and_a_written_one_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path());
        assert_eq!(run.read_status().unwrap().state, State::Pending);
        let status = RunStatus {
            state: State::Diverged,
            step: 3,
            steps: 10,
            tokens: 1536,
            train_loss: Some(0.1 + 0.2),
            validation_loss: None,
            reason: Some("train loss is NaN".into()),
            tokens_per_s: 1e5,
            memory: None,
            save_seconds: Some(0.25),
        };
        run.write_status(&status, true).unwrap();
        assert_eq!(run.read_status().unwrap(), status);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_config_with_an_unknown_key_names_file_and_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "id = \"a\"\nsteppes = 3\n").unwrap();
        let message = RunDir::new(dir.path()).read_config().unwrap_err().to_string();
        assert!(message.contains("config.toml") && message.contains("steppes"), "{message}");
    }
}
