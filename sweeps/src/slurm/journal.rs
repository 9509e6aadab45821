//! What was asked of Slurm: an append-only file in which every record is on the disk before the next thing is done.
//!
//! A submission writes its intent with a tag that nobody else has, calls sbatch with the tag in the job's name, and
//! writes the job's number. After a crash between the two, the tag tells whether the job is there.
//!
//! With `ISOFLOP_DIE_AT_STEP=N` in the environment the process kills itself at the N-th step of what it does here, so that
//! a test can end a submission at every one of them.

use super::SlurmError;
use super::policy::Cause;
use super::resources::Resources;
use isoflop_runtime::rundir::{FileError, sync_dir};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A process took the journal. One that finds a later one of these after its own stops.
    Opened { session: String, host: String, pid: u32, time: u64 },
    /// sbatch will be called.
    Intent(Intent),
    /// sbatch gave this number; `recovered` where it was found by its tag after a crash.
    Submitted { tag: String, job: u64, recovered: bool },
    /// sbatch refused, and there is no such job.
    Refused { tag: String, reason: String },
    /// A crash or a lost answer left no job with this tag. Should one appear yet, it ends at once.
    Absent { tag: String },
    /// These runs were taken out of the queue by a person.
    Cancelled { runs: Vec<String>, time: u64 },
    /// A person wants these runs tried again: what was counted against them is forgotten.
    Retried { runs: Vec<String>, time: u64 },
}

/// One call of sbatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    pub tag: String,
    /// The job's name, which ends with the tag.
    pub name: String,
    /// One run for each task of the array. In a chain it is the same run each time.
    pub runs: Vec<String>,
    /// Tasks go one after the other: segments of one run.
    pub chain: bool,
    pub resources: Resources,
    /// Only the plan is checked, by every rank where it stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// Runs that were submitted before, and what ended them then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub causes: BTreeMap<String, Cause>,
    /// Of the jobs before, those that ended by a fault of their node, such as `12_3`, and the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub time: u64,
}

/// The journal of a study, held by this process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    session: String,
    records: Vec<Record>,
    step: Cell<u64>,
    die_at: Option<u64>,
}

/// `<study>/slurm/journal.jsonl`.
pub fn path(study: &Path) -> PathBuf {
    study.join("slurm").join("journal.jsonl")
}

/// Reads the journal of a study; none where nothing was ever submitted. A torn last line, of a process that died as it
/// wrote, counts for nothing.
///
/// # Errors
/// When the file cannot be read or holds a line that is no record.
pub fn read(study: &Path) -> Result<Option<Vec<Record>>, SlurmError> {
    let path = path(study);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(records(&path, &bytes)?.0)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", &path, e).into()),
    }
}

/// The records, and the bytes that they take.
fn records(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize), SlurmError> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    let records = text.lines().enumerate().map(|(i, line)| {
        serde_json::from_str(line).map_err(|e| SlurmError::Journal {
            path: path.to_owned(),
            line: i + 1,
            message: e.to_string(),
        })
    });
    Ok((records.collect::<Result<_, _>>()?, whole))
}

impl Journal {
    /// Takes the journal of a study, whose lock the caller holds.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(study: &Path) -> Result<Journal, SlurmError> {
        let path = path(study);
        let folder = study.join("slurm");
        std::fs::create_dir_all(&folder).map_err(|e| FileError::new("create", &folder, e))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| FileError::new("open", &path, e))?;
        let bytes = std::fs::read(&path).map_err(|e| FileError::new("read", &path, e))?;
        let (records, whole) = records(&path, &bytes)?;
        // What a process that died was writing: it had not acted on it.
        file.set_len(whole as u64).map_err(|e| FileError::new("cut", &path, e))?;
        sync_dir(&folder)?;
        let die_at = std::env::var("ISOFLOP_DIE_AT_STEP").ok().and_then(|n| n.parse().ok());
        let session = tag();
        let mut journal =
            Journal { path, file, session: session.clone(), records, step: Cell::new(0), die_at };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        journal.write(Record::Opened { session, host, pid: std::process::id(), time: now() })?;
        Ok(journal)
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends a record and waits until it is on the disk. Of a record that could not be written whole nothing stays.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, record: Record) -> Result<(), SlurmError> {
        let mut line = serde_json::to_vec(&record).map_err(|e| SlurmError::Journal {
            path: self.path.clone(),
            line: self.records.len() + 1,
            message: e.to_string(),
        })?;
        line.push(b'\n');
        self.step();
        let end = self.file.metadata().map_err(|e| FileError::new("look at", &self.path, e))?.len();
        let (first, second) = line.split_at(line.len() / 2);
        let written = self
            .file
            .write_all(first)
            .inspect(|()| self.step())
            .and_then(|()| self.file.write_all(second))
            .and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            // Should this fail too, the torn line is cut off by the next who opens the journal.
            let _ = self.file.set_len(end);
            return Err(FileError::new("append to", &self.path, e).into());
        }
        self.records.push(record);
        self.step();
        Ok(())
    }

    /// Fails where another process took the journal since: locks do not reach every host of every file system.
    ///
    /// # Errors
    /// [`SlurmError::Replaced`].
    pub fn check(&self) -> Result<(), SlurmError> {
        let bytes = std::fs::read(&self.path).map_err(|e| FileError::new("read", &self.path, e))?;
        let opened = |r: Record| match r {
            Record::Opened { session, host, pid, .. } => Some((session, host, pid)),
            _ => None,
        };
        match records(&self.path, &bytes)?.0.into_iter().rev().find_map(opened) {
            Some((session, _, _)) if session == self.session => Ok(()),
            Some((_, host, pid)) => Err(SlurmError::Replaced { path: self.path.clone(), host, pid }),
            None => Err(SlurmError::Replaced { path: self.path.clone(), host: "nobody".into(), pid: 0 }),
        }
    }

    /// A place at which a test may end this process.
    pub fn step(&self) {
        self.step.set(self.step.get() + 1);
        if self.die_at == Some(self.step.get()) {
            // SAFETY: kill has no memory effects; it ends this process before it returns.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

/// A name that nobody else has: 12 hexadecimal digits at random.
pub fn tag() -> String {
    format!("{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submitted(job: u64) -> Record {
        Record::Submitted { tag: tag(), job, recovered: false }
    }

    #[test]
    fn a_torn_line_counts_for_nothing_and_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let mut journal = Journal::open(dir.path()).unwrap();
        let record = submitted(7);
        journal.write(record.clone()).unwrap();
        let whole = std::fs::read(path(dir.path())).unwrap();
        for torn in [&b"{\"record\":\"subm"[..], &[0xff, 0xfe], b"{"] {
            std::fs::write(path(dir.path()), [&whole, torn].concat()).unwrap();
            assert_eq!(read(dir.path()).unwrap().unwrap().last(), Some(&record));
        }
        let mut again = Journal::open(dir.path()).unwrap();
        again.write(submitted(8)).unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap(), again.records());
        assert_eq!(again.records().len(), 4);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path()).unwrap();
        std::fs::write(path(dir.path()), "{}\n").unwrap();
        let message = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("journal.jsonl:1"), "{message}");
    }

    #[test]
    fn the_one_who_opened_last_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Journal::open(dir.path()).unwrap();
        first.check().unwrap();
        let second = Journal::open(dir.path()).unwrap();
        second.check().unwrap();
        let message = first.check().unwrap_err().to_string();
        assert!(message.contains(&std::process::id().to_string()), "{message}");
    }
}
