//! Nodes that further jobs of a study avoid, and why: what happened to its own jobs there.

use super::history::History;
use super::ledger::Attempt;
use super::parse::{JobState, TaskId};
use super::view::Task;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Jobs that Slurm says to have ended by a fault of one node before it is left out.
pub const FAULTS: usize = 2;
/// Attempts that ended on one node without a word before it is left out: that may have other reasons.
pub const VANISHED: usize = 3;

/// What happened on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BadNode {
    pub node: String,
    /// Jobs that ended as NODE_FAIL or BOOT_FAIL.
    pub faults: usize,
    /// Attempts that ended without a word, which no state of Slurm's explains.
    pub vanished: usize,
}

impl std::fmt::Display for BadNode {
    /// `n1 (2 jobs lost it or could not be started on it, 1 ended there without a word)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (", self.node)?;
        if self.faults > 0 {
            write!(f, "{} jobs lost it or could not be started on it", self.faults)?;
        }
        if self.vanished > 0 {
            let comma = if self.faults > 0 { ", " } else { "" };
            write!(f, "{comma}{} attempts ended there without a word", self.vanished)?;
        }
        f.write_str(")")
    }
}

/// Counts what happened, by node.
#[derive(Debug, Default)]
pub struct Nodes {
    /// Tasks that ended by a fault of their node, such as `12_3`, and the node.
    faults: BTreeMap<String, String>,
    vanished: BTreeMap<String, usize>,
}

impl Nodes {
    /// With the faults that the journal remembers, also of runs that are done since.
    pub fn new(history: &History) -> Nodes {
        let faults = history.batches.iter().flat_map(|b| b.intent.faults.clone()).collect();
        Nodes { faults, vanished: BTreeMap::new() }
    }

    /// Counts one task: what Slurm still knows of it and what it wrote itself. Of a task that is live the newest attempt is not
    /// over.
    pub fn count(&mut self, id: TaskId, task: Option<&Task>, attempts: &[Attempt], is_live: bool) {
        let state = task.map(|t| t.state);
        let is_fault = matches!(state, Some(JobState::NodeFail | JobState::BootFail));
        // Slurm ended these itself, with or without time for a word.
        let by_slurm = matches!(
            state,
            Some(JobState::Preempted | JobState::Timeout | JobState::Cancelled | JobState::OutOfMemory)
        );
        if let Some(task) = task.filter(|_| is_fault) {
            self.faults.insert(format!("{}_{}", id.0, id.1), task.nodes.clone());
        }
        let newest_counts = !(is_live || is_fault || by_slurm);
        let silent =
            |(i, a): &(usize, &Attempt)| a.end.is_none() && (newest_counts || i + 1 < attempts.len());
        for (_, attempt) in attempts.iter().enumerate().filter(silent) {
            *self.vanished.entry(attempt.node.clone()).or_default() += 1;
        }
    }

    /// Nodes to leave out. Of a job on several nodes nobody knows which was at fault: lists of nodes never count.
    pub fn bad(&self) -> Vec<BadNode> {
        let names: BTreeSet<&String> = self.faults.values().chain(self.vanished.keys()).collect();
        let node = |name: &String| BadNode {
            node: name.clone(),
            faults: self.faults.values().filter(|n| *n == name).count(),
            vanished: self.vanished.get(name).copied().unwrap_or(0),
        };
        let is_one = |name: &str| !name.is_empty() && name != "unknown" && !name.contains(['[', ',']);
        let is_bad = |n: &BadNode| is_one(&n.node) && (n.faults >= FAULTS || n.vanished >= VANISHED);
        names.into_iter().map(node).filter(is_bad).collect()
    }
}

/// A sentence for people; none where no node is left out.
pub fn in_words(bad: &[BadNode]) -> Option<String> {
    let names: Vec<String> = bad.iter().map(BadNode::to_string).collect();
    (!bad.is_empty()).then(|| format!("left out of further jobs: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(node: &str, code: Option<i32>) -> Attempt {
        Attempt { job: "7_0".into(), restart: 0, node: node.into(), start: 1, end: code.map(|c| (c, 2)) }
    }

    fn task(state: JobState, nodes: &str) -> Task {
        Task { state, reason: String::new(), nodes: nodes.into(), start: None, exit: None }
    }

    /// Names of nodes that are left out after these tasks.
    fn bad(tasks: &[(Option<Task>, Vec<Attempt>, bool)]) -> Vec<String> {
        let mut nodes = Nodes::default();
        for (i, (task, attempts, is_live)) in (0u32..).zip(tasks) {
            nodes.count((7, i), task.as_ref(), attempts, *is_live);
        }
        nodes.bad().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_and_silent_ends_count_and_what_slurm_did_does_not() {
        let fault = |state, node: &str| (Some(task(state, node)), vec![attempt(node, None)], false);
        let once = [fault(JobState::NodeFail, "n1"), fault(JobState::BootFail, "n2")];
        assert_eq!(bad(&once), Vec::<String>::new());
        let twice = [once.to_vec(), vec![fault(JobState::BootFail, "n1")]].concat();
        assert_eq!(bad(&twice), ["n1 (2 jobs lost it or could not be started on it)"]);
        let vanished = |node: &str| (None, vec![attempt(node, None)], false);
        assert_eq!(bad(&vec![vanished("n3"); 2]), Vec::<String>::new());
        assert_eq!(bad(&vec![vanished("n3"); 3]), ["n3 (3 attempts ended there without a word)"]);
        for state in [JobState::Preempted, JobState::Timeout, JobState::Cancelled, JobState::OutOfMemory] {
            assert_eq!(bad(&vec![fault(state, "n1"); 9]), Vec::<String>::new(), "{state}");
        }
        // One task that was put back twice and runs: two attempts are over, the third is not.
        let restarted = vec![attempt("n1", None), attempt("n1", None), attempt("n1", None)];
        let running = (Some(task(JobState::Running, "n1")), restarted, true);
        assert_eq!(bad(std::slice::from_ref(&running)), Vec::<String>::new());
        assert_eq!(bad(&[running.clone(), running]), ["n1 (4 attempts ended there without a word)"]);
        // Lists of nodes, and ends with a word.
        assert_eq!(bad(&vec![fault(JobState::NodeFail, "n[1-2]"); 9]), Vec::<String>::new());
        assert_eq!(bad(&vec![(None, vec![attempt("n1", Some(1))], false); 9]), Vec::<String>::new());
    }
}
