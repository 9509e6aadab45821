//! `isoflop train --check`: every rank of a run looks whether it stands where the plan wants it, and nothing is trained.
//!
//! Each rank writes what it found below `<run>/check/<attempt>/`, which also shows that the run directory is the same on all
//! nodes. Rank 0 owns the run meanwhile, waits for the others and writes the outcome into `status.json`.

use crate::layout::{Coordinates, LayoutError, RunLayout};
use crate::lease::{Lease, LeaseError};
use crate::placement::Placement;
use crate::rundir::{At, FileError, RunDir, RunDirError, replace};
use crate::status::{RunStatus, State};
use crate::train::{EXIT_FAILED, EXIT_NOT_OWNER};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long rank 0 waits for the others.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {message}", path.display())]
    Rank { path: PathBuf, message: String },
    #[error("the plan does not hold here: {}", problems.join("; "))]
    Problems { problems: Vec<String> },
}

impl CheckError {
    pub fn exit_code(&self) -> i32 {
        match self {
            CheckError::Lease(LeaseError::Held { .. } | LeaseError::HeldByUnknown { .. }) => EXIT_NOT_OWNER,
            CheckError::Lease(e) if e.is_lost() => EXIT_NOT_OWNER,
            _ => EXIT_FAILED,
        }
    }
}

/// What one rank found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Found {
    rank: usize,
    host: String,
    node: usize,
    gpus: usize,
    place: Coordinates,
    problems: Vec<String>,
}

/// Checks this rank, and as rank 0 all of them. Returns what was found in words: another rank than 0 leaves the judgement to
/// rank 0.
///
/// # Errors
/// [`CheckError::Problems`] where the plan does not hold, and what cannot be read or written.
pub fn check(run_dir: &Path, place: &Placement, patience: Duration) -> Result<String, CheckError> {
    let run = RunDir::new(run_dir);
    let planned = RunLayout::read(&run)?;
    let folder = run_dir.join("check").join(&place.attempt);
    let found = look(&planned, place);
    if place.rank != 0 {
        write(&folder, &found)?;
        // Rank 0 fails for all: a rank that ended before it would have the whole step killed.
        return Ok(match found.problems.is_empty() {
            true => format!("rank {} of {} is in its place", place.rank, place.ranks),
            false => found.problems.join("; "),
        });
    }
    let lease = Lease::acquire(run_dir)?;
    write(&folder, &found)?;
    let (hosts, problems) = gather(&planned, &folder, patience)?;
    lease.check()?;
    let words = format!("{} on {}: every rank is in its place", planned.layout, hosts_in_words(&hosts));
    let mut status = RunStatus::pending();
    (status.state, status.reason) = match problems.is_empty() {
        true => (State::Checked, Some(words.clone())),
        false => (State::Failed, Some(problems.join("; "))),
    };
    run.write_status(&status, true)?;
    if problems.is_empty() {
        // Who was where is kept; the ranks' own files have said it.
        let text = serde_json::to_vec_pretty(&hosts)
            .map_err(|e| CheckError::Rank { path: folder.clone(), message: e.to_string() })?;
        replace(&run_dir.join("check/hosts.json"), &text, false)?;
        std::fs::remove_dir_all(&folder).at("remove", &folder)?;
    }
    if problems.is_empty() { Ok(words) } else { Err(CheckError::Problems { problems }) }
}

/// `128 GPUs of 16 nodes`.
fn hosts_in_words(hosts: &BTreeMap<String, Vec<usize>>) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let gpus = hosts.values().map(Vec::len).sum();
    format!("{} of {}", count(gpus, "GPU"), count(hosts.len(), "node"))
}

/// What this rank can see by itself.
fn look(planned: &RunLayout, place: &Placement) -> Found {
    let mut problems = if place.rank == 0 { planned.problems() } else { Vec::new() };
    let mut compare = |what: &str, found: usize, wanted: usize| {
        if found != wanted {
            problems.push(format!("rank {} on {}: {what} {found}, planned {wanted}", place.rank, place.host));
        }
    };
    compare("processes", place.ranks, planned.gpus);
    compare("nodes", place.nodes, planned.nodes);
    compare("GPUs of the node", place.gpus, planned.gpus_per_node);
    compare("place of the node", place.node, place.rank / planned.gpus_per_node.max(1));
    let place_in_layout = planned.layout.coordinates(place.rank);
    Found {
        rank: place.rank,
        host: place.host.clone(),
        node: place.node,
        gpus: place.gpus,
        place: place_in_layout,
        problems,
    }
}

fn rank_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("{rank}.json"))
}

fn write(folder: &Path, found: &Found) -> Result<(), CheckError> {
    std::fs::create_dir_all(folder).at("create", folder)?;
    let path = rank_file(folder, found.rank);
    let text = serde_json::to_vec(found)
        .map_err(|e| CheckError::Rank { path: path.clone(), message: e.to_string() })?;
    Ok(replace(&path, &text, false)?)
}

/// The ranks of every node, and what is wrong with any of them or with all together.
type Gathered = (BTreeMap<String, Vec<usize>>, Vec<String>);

/// Waits for the files of all ranks and puts them together.
fn gather(planned: &RunLayout, folder: &Path, patience: Duration) -> Result<Gathered, CheckError> {
    let began = Instant::now();
    let mut missing: Vec<usize> = (0..planned.gpus).collect();
    let mut all: Vec<Found> = Vec::new();
    loop {
        let mut still = Vec::new();
        for rank in missing {
            let path = rank_file(folder, rank);
            match std::fs::read(&path) {
                Ok(bytes) => all.push(
                    serde_json::from_slice(&bytes)
                        .map_err(|e| CheckError::Rank { path, message: e.to_string() })?,
                ),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => still.push(rank),
                Err(e) => return Err(FileError::new("read", &path, e).into()),
            }
        }
        missing = still;
        // Ranks that are too few or too many are named below; those that are not started cannot be waited for.
        if missing.is_empty() || began.elapsed() > patience || all.iter().any(|f| !f.problems.is_empty()) {
            break;
        }
        std::thread::sleep(POLL);
    }
    let mut problems: Vec<String> = all.iter().flat_map(|f| f.problems.clone()).collect();
    if problems.is_empty() && !missing.is_empty() {
        let seconds = patience.as_secs();
        problems.push(format!(
            "{} of {} ranks wrote nothing into {} within {seconds} s, the first is rank {}: is it the same directory on \
             all nodes?",
            missing.len(),
            planned.gpus,
            folder.display(),
            missing[0]
        ));
    }
    let mut hosts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut groups: BTreeMap<(usize, usize), &str> = BTreeMap::new();
    for found in &all {
        hosts.entry(found.host.clone()).or_default().push(found.rank);
        let Coordinates { stage, copy, .. } = found.place;
        let first = groups.entry((stage, copy)).or_insert(&found.host);
        if *first != found.host {
            problems.push(format!(
                "GPUs that share the layers of stage {stage} are on {first} and on {}, rank {}",
                found.host, found.rank
            ));
        }
    }
    Ok((hosts, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::gopher;

    /// Long enough for ranks that do come, however slow the machine.
    const LONG: Duration = Duration::from_secs(60);

    fn run(
        patience: Duration,
        change: impl Fn(&mut Placement) + Sync,
    ) -> (tempfile::TempDir, Vec<Result<String, CheckError>>) {
        let dir = tempfile::tempdir().unwrap();
        gopher().write(&RunDir::new(dir.path())).unwrap();
        let place = |rank: usize| {
            let (node, host) = (rank / 8, format!("n{}", rank / 8 + 1));
            let attempt = "7-0-0".to_owned();
            let mut place = Placement { attempt, rank, ranks: 128, node, nodes: 16, host, gpus: 8 };
            change(&mut place);
            place
        };
        let results = std::thread::scope(|scope| {
            let (path, place) = (dir.path(), &place);
            let ranks: Vec<_> =
                (0..128).map(|r| scope.spawn(move || check(path, &place(r), patience))).collect();
            ranks.into_iter().map(|t| t.join().unwrap()).collect()
        });
        (dir, results)
    }

    fn status(dir: &tempfile::TempDir) -> RunStatus {
        RunDir::new(dir.path()).read_status().unwrap()
    }

    #[test]
    fn ranks_in_their_places_pass() {
        let (dir, results) = run(LONG, |_| {});
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(status(&dir).state, State::Checked);
        let text = std::fs::read_to_string(dir.path().join("check/hosts.json")).unwrap();
        let hosts: BTreeMap<String, Vec<usize>> = serde_json::from_str(&text).unwrap();
        assert_eq!((hosts.len(), &hosts["n16"]), (16, &(120..128).collect()));
        assert!(!dir.path().join("check/7-0-0").exists());
    }

    #[test]
    fn a_node_with_fewer_gpus_is_named() {
        let (dir, results) = run(LONG, |p| p.gpus -= usize::from(p.host == "n3"));
        let reason = status(&dir).reason.unwrap();
        assert_eq!(status(&dir).state, State::Failed);
        assert!(reason.contains("on n3: GPUs of the node 7, planned 8"), "{reason}");
        assert!(results[0].is_err() && results[1..].iter().all(Result::is_ok), "only rank 0 fails");
        assert!(results[16].as_ref().unwrap().contains("planned 8"));
    }

    #[test]
    fn a_directory_that_is_not_shared_is_named() {
        let (dir, _) = run(Duration::from_secs(3), |p| {
            if p.node == 5 {
                p.attempt = "elsewhere".into();
            }
        });
        let reason = status(&dir).reason.unwrap();
        assert!(reason.contains("8 of 128 ranks wrote nothing") && reason.contains("rank 40"), "{reason}");
    }

    #[test]
    fn shards_on_two_nodes_are_named() {
        let (dir, _) = run(LONG, |p| {
            if p.rank == 9 {
                p.host = "n9".into();
            }
        });
        let reason = status(&dir).reason.unwrap();
        assert!(reason.contains("are on n2 and on n9, rank 9"), "{reason}");
    }

    #[test]
    fn a_run_that_is_owned_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        gopher().write(&RunDir::new(dir.path())).unwrap();
        let _owner = Lease::acquire(dir.path()).unwrap();
        let alone = Placement::of(&|_| None, "head".into()).unwrap();
        let e = check(dir.path(), &alone, Duration::ZERO).unwrap_err();
        assert_eq!(e.exit_code(), EXIT_NOT_OWNER, "{e}");
    }
}
