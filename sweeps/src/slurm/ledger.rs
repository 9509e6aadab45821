//! What jobs wrote themselves of their attempts at a run: known without accounts, and for as long as the study is there.

use super::script;
use isoflop_runtime::rundir::FileError;
use std::path::Path;

/// One time that a task was started on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `12_3`.
    pub job: String,
    /// How often Slurm had put the job back into the queue.
    pub restart: u32,
    pub node: String,
    /// Seconds since 1970.
    pub start: u64,
    /// Exit code of the worker, and seconds since 1970; none where the job was ended without a word, or runs.
    pub end: Option<(i32, u64)>,
}

/// The attempts of one task, in the order in which they began.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(study: &Path, tag: &str, index: u32) -> Result<Vec<Attempt>, FileError> {
    let path = script::ledger(study, tag, index);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(FileError::new("read", &path, e)),
    }
}

/// Lines that are not whole are of jobs that died as they wrote them, and say nothing.
fn parse(text: &str) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for line in text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')) {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["start", job, restart, node, seconds] => {
                let (Ok(restart), Ok(start)) = (restart.parse(), seconds.parse()) else { continue };
                let (job, node) = ((*job).to_owned(), (*node).to_owned());
                attempts.push(Attempt { job, restart, node, start, end: None });
            }
            ["end", code, seconds] => {
                // With two copies of a job at once an end is that of the newest which has none.
                let open = attempts.iter_mut().rev().find(|a| a.end.is_none());
                if let (Some(open), Ok(code), Ok(seconds)) = (open, code.parse(), seconds.parse()) {
                    open.end = Some((code, seconds));
                }
            }
            _ => {}
        }
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_ends_are_paired_and_torn_lines_left_out() {
        let text =
            "start 7_0 0 n1 100\nstart 7_0 1 n2 200\nend 75 260\nnonsense\nstart 7_0 2 n1 300\nend 0 4";
        let found = parse(text);
        let short: Vec<_> = found.iter().map(|a| (a.restart, a.node.as_str(), a.end)).collect();
        assert_eq!(short, [(0, "n1", None), (1, "n2", Some((75, 260))), (2, "n1", None)]);
    }
}
