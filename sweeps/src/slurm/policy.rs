//! Why a job ended without its run being finished, and what follows from that.

use super::ledger::Attempt;
use super::parse::JobState;
use super::view::Task;
use isoflop_runtime::status::MemoryStatus;
use isoflop_runtime::train::{EXIT_CONTINUE, EXIT_NOT_OWNER};
use serde::{Deserialize, Serialize};

/// What ended a job whose run is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    Preempted,
    NodeFail,
    BootFail,
    /// The limit of time, before the worker had saved.
    Timeout,
    /// It saved and stopped, for a limit of time or on request.
    Stopped,
    /// Another process had the run for as long as the job tried.
    NotOwner,
    OutOfMemory,
    /// Killed by a signal that Slurm did not send.
    Killed,
    /// It began and left no word of its end.
    Vanished,
    /// There is no trace that it ever began.
    NeverBegan,
    Cancelled,
    Failed,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Submitted again as it was.
    Again,
    /// Submitted again with more memory.
    MoreMemory,
    /// Nothing, until a person says so.
    GiveUp,
}

/// Memory asked for grows by this with each time that it was not enough.
pub const MORE_MEMORY: f64 = 1.5;
/// Of memory asked for, what a killed process must have had for memory to be the likely cause.
const NEARLY_ALL: f64 = 0.85;

impl Cause {
    /// How often a run is submitted again for this cause.
    pub fn cap(self) -> usize {
        match self {
            // Nothing that the run did: each of these costs it no more than the work since its last checkpoint.
            Cause::Preempted | Cause::NodeFail | Cause::Stopped | Cause::NotOwner | Cause::NeverBegan => 50,
            Cause::Timeout | Cause::BootFail | Cause::Vanished => 10,
            Cause::OutOfMemory | Cause::Killed => 3,
            Cause::Cancelled | Cause::Failed => 0,
        }
    }

    /// What follows where it has followed `times` before for the same cause.
    pub fn next(self, times: usize) -> Next {
        match self {
            _ if times >= self.cap() => Next::GiveUp,
            Cause::OutOfMemory => Next::MoreMemory,
            _ => Next::Again,
        }
    }

    /// For a sentence that begins "its job ...".
    pub fn sentence(self) -> &'static str {
        match self {
            Cause::Preempted => "was preempted by another",
            Cause::NodeFail => "lost its node",
            Cause::BootFail => "could not be started on its node",
            Cause::Timeout => "met its limit of time",
            Cause::Stopped => "saved and stopped on request",
            Cause::NotOwner => "found the run in the hands of another process",
            Cause::OutOfMemory => "ran out of the memory it asked for",
            Cause::Killed => "was killed by a signal that is not Slurm's",
            Cause::Vanished => "ended without a word",
            Cause::NeverBegan => "is gone and never began",
            Cause::Cancelled => "was cancelled",
            Cause::Failed => "failed",
        }
    }
}

/// Why the newest job of a run that is not done ended. `task` is what Slurm still knows, `attempts` what the job wrote
/// itself; `asked_bytes` and `memory` tell whether a kill was one for memory.
pub fn cause(
    task: Option<&Task>,
    attempts: &[Attempt],
    asked_bytes: Option<u64>,
    memory: Option<&MemoryStatus>,
) -> Cause {
    let last = attempts.last();
    let code = last.and_then(|a| a.end).map(|(code, _)| code);
    let short_of_memory = || {
        let (asked, peak) = (asked_bytes?, memory?.peak_bytes?);
        Some(peak as f64 >= NEARLY_ALL * asked as f64)
    };
    match task.map(|t| t.state) {
        Some(JobState::Preempted) => Cause::Preempted,
        Some(JobState::NodeFail) => Cause::NodeFail,
        Some(JobState::BootFail) => Cause::BootFail,
        Some(JobState::Timeout) => Cause::Timeout,
        Some(JobState::OutOfMemory) => Cause::OutOfMemory,
        Some(JobState::Cancelled) => Cause::Cancelled,
        state => {
            let (exit, signal) = task.and_then(|t| t.exit).unwrap_or_default();
            match code {
                Some(EXIT_CONTINUE) => Cause::Stopped,
                Some(EXIT_NOT_OWNER) => Cause::NotOwner,
                Some(137) if short_of_memory() == Some(true) => Cause::OutOfMemory,
                Some(129..=199) => Cause::Killed,
                Some(_) => Cause::Failed,
                // The script itself was killed: where Slurm watches memory without cgroups that is how it ends.
                None if signal == 9 && short_of_memory() != Some(false) => Cause::OutOfMemory,
                None if signal != 0 => Cause::Killed,
                None if last.is_some() => Cause::Vanished,
                None if matches!(state, Some(JobState::Failed)) && exit != 0 => Cause::Failed,
                None => Cause::NeverBegan,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: JobState, exit: (i32, i32)) -> Task {
        Task { state, exit: Some(exit), reason: String::new(), nodes: "n1".into(), start: None }
    }

    fn attempt(code: Option<i32>) -> Attempt {
        Attempt { job: "7_0".into(), restart: 0, node: "n1".into(), start: 10, end: code.map(|c| (c, 20)) }
    }

    #[test]
    fn every_end_has_its_cause() {
        use JobState as S;
        let peak = |bytes| {
            Some(MemoryStatus {
                planned_bytes: 1,
                planned_file_bytes: 1,
                peak_bytes: Some(bytes),
                file_bytes: None,
            })
        };
        let asked = Some(1_000);
        let cases = [
            (Some(ended(S::Preempted, (0, 15))), vec![attempt(Some(75))], None, Cause::Preempted),
            (Some(ended(S::NodeFail, (0, 0))), vec![attempt(None)], None, Cause::NodeFail),
            (Some(ended(S::Timeout, (0, 15))), vec![attempt(Some(75))], None, Cause::Timeout),
            (Some(ended(S::OutOfMemory, (0, 125))), vec![attempt(None)], None, Cause::OutOfMemory),
            (Some(ended(S::BootFail, (0, 0))), vec![], None, Cause::BootFail),
            (Some(ended(S::Cancelled, (0, 0))), vec![], None, Cause::Cancelled),
            (Some(ended(S::Failed, (75, 0))), vec![attempt(Some(75))], None, Cause::Stopped),
            (Some(ended(S::Failed, (77, 0))), vec![attempt(Some(77))], None, Cause::NotOwner),
            (Some(ended(S::Failed, (1, 0))), vec![attempt(Some(1))], None, Cause::Failed),
            // Over memory, as a Slurm without cgroups shows it: of the script, and of the worker.
            (Some(ended(S::Failed, (0, 9))), vec![attempt(None)], None, Cause::OutOfMemory),
            (Some(ended(S::Failed, (0, 9))), vec![attempt(None)], peak(100), Cause::Killed),
            (Some(ended(S::Failed, (9, 0))), vec![attempt(Some(137))], peak(990), Cause::OutOfMemory),
            (Some(ended(S::Failed, (9, 0))), vec![attempt(Some(137))], peak(100), Cause::Killed),
            (Some(ended(S::Failed, (0, 11))), vec![attempt(Some(139))], None, Cause::Killed),
            // Without slurmdbd, after Slurm has forgotten the job.
            (None, vec![attempt(None)], None, Cause::Vanished),
            (None, vec![attempt(Some(1))], None, Cause::Failed),
            (None, vec![attempt(None), attempt(Some(75))], None, Cause::Stopped),
            (None, vec![], None, Cause::NeverBegan),
        ];
        for (task, attempts, memory, expected) in cases {
            let found = cause(task.as_ref(), &attempts, asked, memory.as_ref());
            assert_eq!(found, expected, "{task:?} {attempts:?} {memory:?}");
        }
    }

    #[test]
    fn everything_has_an_end() {
        assert_eq!(Cause::OutOfMemory.next(0), Next::MoreMemory);
        assert_eq!([Cause::Failed.next(0), Cause::Cancelled.next(0)], [Next::GiveUp; 2]);
        for cause in [Cause::Preempted, Cause::NodeFail, Cause::Timeout, Cause::Killed, Cause::Vanished] {
            assert_eq!(cause.next(0), Next::Again, "{cause:?}");
            assert_eq!(cause.next(cause.cap()), Next::GiveUp, "{cause:?}");
        }
    }
}
