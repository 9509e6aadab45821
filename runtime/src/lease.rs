//! One owner of a run directory: a lock of the kernel for this host, and a fencing token for all hosts.
//!
//! `lease.lock` is locked with flock(2): the kernel frees it when its owner dies, however it dies. `lease.json` names
//! the newest owner and counts owners. A file system whose locks do not reach other hosts (or a scheduler that
//! starts a second copy while the first still runs) can let two owners in: the second one's number is then the
//! newer, and the first finds out before its next write and leaves the directory alone.

use crate::rundir::{At, FileError, replace};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `lease.json`: who owns a run directory, or owned it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Grows by one with every owner: the fencing token.
    pub epoch: u64,
    pub host: String,
    pub pid: u32,
    /// Of the kernel: tells a process from one of the same number before a reboot.
    pub boot_id: String,
    /// Seconds since 1970 when it became the owner.
    pub since: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{}: run is owned by process {} on host {} (owner {}); wait for it to end or stop it first",
        path.display(), owner.pid, owner.host, owner.epoch
    )]
    Held { path: PathBuf, owner: Box<Owner> },
    #[error(
        "{}: run is locked by another process that has not yet written its name; try again in a moment",
        path.display()
    )]
    HeldByUnknown { path: PathBuf },
    #[error(
        "{}: lost lease: process {} on host {} became owner {} of this run, we were owner {ours}; nothing more was \
         written here by us",
        path.display(), owner.pid, owner.host, owner.epoch
    )]
    Lost { path: PathBuf, ours: u64, owner: Box<Owner> },
    #[error("{}: lost lease: the file is gone or not readable as ours ({found}); nothing more was written by us", path.display())]
    LostFile { path: PathBuf, found: String },
    #[error("{}: {message}; make sure that no process works on this run, then remove the file", path.display())]
    Unreadable { path: PathBuf, message: String },
}

impl LeaseError {
    /// True where the run now belongs to somebody else.
    pub fn is_lost(&self) -> bool {
        matches!(self, LeaseError::Lost { .. } | LeaseError::LostFile { .. })
    }
}

/// The right to write into a run directory, given up when dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    owner: Owner,
    /// Holds the lock: closing the file frees it.
    _lock: File,
}

impl Lease {
    /// Takes the run directory, or says who has it.
    pub fn acquire(run_dir: &Path) -> Result<Lease, LeaseError> {
        let (lock_path, path) = (run_dir.join("lease.lock"), run_dir.join("lease.json"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .at("open", &lock_path)?;
        if !lock_patiently(&lock).at("lock", &lock_path)? {
            return Err(match read(&path)? {
                Some(owner) => LeaseError::Held { path, owner: Box::new(owner) },
                None => LeaseError::HeldByUnknown { path },
            });
        }
        let epoch = read(&path)?.map_or(0, |o| o.epoch) + 1;
        let owner = Owner {
            epoch,
            host: host_name(),
            pid: std::process::id(),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map_or_else(|_| "unknown".into(), |s| s.trim().into()),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        };
        let mut json = serde_json::to_vec_pretty(&owner)
            .map_err(|e| LeaseError::Unreadable { path: path.clone(), message: e.to_string() })?;
        json.push(b'\n');
        replace(&path, &json, true)?;
        Ok(Lease { path, owner, _lock: lock })
    }

    /// Fails if a newer owner took the run. Called before each write into it.
    pub fn check(&self) -> Result<(), LeaseError> {
        match read(&self.path) {
            Ok(Some(owner)) if owner == self.owner => Ok(()),
            Ok(Some(owner)) => {
                let (path, ours) = (self.path.clone(), self.owner.epoch);
                Err(LeaseError::Lost { path, ours, owner: Box::new(owner) })
            }
            Ok(None) => Err(LeaseError::LostFile { path: self.path.clone(), found: "no such file".into() }),
            Err(LeaseError::Unreadable { path, message }) => {
                Err(LeaseError::LostFile { path, found: message })
            }
            Err(e) => Err(e),
        }
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

/// The newest owner of a run directory, dead or alive; none before the first.
pub fn read_owner(run_dir: &Path) -> Result<Option<Owner>, LeaseError> {
    read(&run_dir.join("lease.json"))
}

/// Whether the lock was free, or became free while a process that has just been forked from its last holder still had
/// that holder's descriptors: they close when it starts its program.
fn lock_patiently(lock: &File) -> io::Result<bool> {
    const PAUSE: Duration = Duration::from_millis(20);
    const ATTEMPTS: u32 = 25;
    for attempt in 0..ATTEMPTS {
        // SAFETY: flock only reads the descriptor, which `lock` keeps open.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::WouldBlock {
            return Err(e);
        }
        if attempt + 1 < ATTEMPTS {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(false)
}

fn read(path: &Path) -> Result<Option<Owner>, LeaseError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| LeaseError::Unreadable { path: path.into(), message: e.to_string() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", path, e).into()),
    }
}

/// This machine's name as the kernel has it.
pub(crate) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".into(), |s| s.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_by_name_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lease::acquire(dir.path()).unwrap();
        assert_eq!(first.owner().epoch, 1);
        let message = Lease::acquire(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains(&host_name()), "{message}");
        first.check().unwrap();
        drop(first);
        assert_eq!(Lease::acquire(dir.path()).unwrap().owner().epoch, 2);
    }

    #[test]
    fn an_owner_finds_out_that_a_newer_one_came() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lease::acquire(dir.path()).unwrap();
        // What another host sees whose file system does not carry our lock.
        fs::remove_file(dir.path().join("lease.lock")).unwrap();
        let second = Lease::acquire(dir.path()).unwrap();
        let error = first.check().unwrap_err();
        assert!(error.is_lost() && error.to_string().contains("owner 2"), "{error}");
        second.check().unwrap();
        fs::remove_file(dir.path().join("lease.json")).unwrap();
        assert!(second.check().unwrap_err().is_lost());
    }

    #[test]
    fn a_broken_lease_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lease.json"), "{").unwrap();
        let message = Lease::acquire(dir.path()).unwrap_err().to_string();
        assert!(message.contains("lease.json") && message.contains("remove the file"), "{message}");
    }
}
