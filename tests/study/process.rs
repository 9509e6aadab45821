//! Programs that are not let go to their end: started beside the test, watched, stopped and killed.

use crate::lab::{Lab, isoflop};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program that is killed should the test end before it.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `isoflop` with these arguments; nothing that it says is kept.
    pub fn start(lab: &Lab, args: &[&str]) -> Running {
        let mut command = lab.command(isoflop(), args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Running { child: child.expect("isoflop starts") }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child of ours")
    }

    /// Sends a signal. The child was not waited for, so its process id is still its own.
    pub fn signal(&self, signal: libc::c_int) {
        send(self.child.id(), signal);
    }

    /// Kills the program and, if asked, those that it started, so that none of them can do anything more.
    pub fn kill(self, children_too: bool) {
        // Stopped first: it neither starts others meanwhile nor takes leave of those that end.
        self.signal(libc::SIGSTOP);
        if children_too {
            children_of(self.id()).into_iter().for_each(|child| send(child, libc::SIGKILL));
        }
        self.signal(libc::SIGKILL);
        self.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the caller knows to be its own, or a stopped child's.
pub fn send(process: u32, signal: libc::c_int) {
    let process = libc::pid_t::try_from(process).expect("a process id");
    // SAFETY: kill has no memory effects.
    unsafe {
        libc::kill(process, signal);
    }
}

/// Processes started by `parent`.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // `pid (name) state ppid ...`; the name may hold anything.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    ids.filter(is_child).collect()
}

/// Waits until `happened`; fails after a minute.
#[track_caller]
pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(60), "a minute has gone without {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The state in a run directory's status.json; empty where there is none yet.
pub fn state(run_dir: &Path) -> String {
    let status = std::fs::read_to_string(run_dir.join("status.json")).unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    status["state"].as_str().unwrap_or_default().to_owned()
}
