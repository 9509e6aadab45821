//! Every way in which a cluster ends jobs early, all in one sweep: nothing is lost, nothing doubled, and no byte differs.

use crate::cluster::{Cluster, for_slurm};
use crate::lab::{Lab, SWEEP, assert_same};
use crate::whole::results_of;
use std::path::{Path, PathBuf};

/// The process that owns a run.
pub fn worker(run: &Path) -> Option<i32> {
    let lease: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("lease.json")).ok()?).ok()?;
    let pid = i32::try_from(lease["pid"].as_i64()?).ok()?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains(run.file_name()?.to_str()?).then_some(pid)
}

/// Stops, continues or kills the worker of a run.
#[track_caller]
pub fn send(run: &Path, signal: libc::c_int) {
    let pid = worker(run).unwrap_or_else(|| panic!("no worker of {}", run.display()));
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(pid, signal) };
}

/// The last step of which a run's timings tell, and that of its newest checkpoint.
fn last_steps(run: &Path) -> (u64, u64) {
    let timings = std::fs::read_to_string(run.join("timings.csv")).unwrap_or_default();
    let timed = timings.lines().rev().find_map(|l| l.split(',').next()?.parse().ok());
    let checkpoints = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let saved = checkpoints.filter_map(|e| e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()).max();
    (timed.unwrap_or(0), saved.unwrap_or(0))
}

/// Kills -9 the stopped worker of a run when it has steps to lose: more than what timings, which begin an attempt at a
/// guess, can be off.
#[track_caller]
fn kill_at_work(run: &Path) {
    for _ in 0..1000 {
        let (timed, saved) = last_steps(run);
        if saved > 0 && timed > saved + 50 {
            return send(run, libc::SIGKILL);
        }
        send(run, libc::SIGCONT);
        std::thread::sleep(std::time::Duration::from_millis(5));
        send(run, libc::SIGSTOP);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{}: {:?}", run.display(), last_steps(run));
}

/// True once the worker of a stopped run has been sent this signal, which it cannot take before it goes on.
pub fn has_been_sent(run: &Path, signal: libc::c_int) -> bool {
    let status = worker(run).and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let status = status.unwrap_or_default();
    let pending = status.lines().find_map(|l| l.strip_prefix("ShdPnd:")).unwrap_or("0");
    u64::from_str_radix(pending.trim(), 16).is_ok_and(|set| set & (1 << (signal - 1)) != 0)
}

/// The lines of all attempts of the study's jobs.
fn attempts(study: &Path) -> Vec<String> {
    let files = crate::lab::walk(&study.join("slurm"))
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "attempts"));
    files
        .flat_map(|p| {
            std::fs::read_to_string(p).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_sweep_to_which_everything_happens_ends_with_the_bytes_of_a_local_one() {
    // Six runs of one CPU each; limits of a minute, of which Slurm tells half a minute before.
    let sweep =
        for_slurm("partition = \"low\"").replace("1e9, 2e9, 4e9", "4e10, 8e10").replace("10min", "1min");
    assert!(sweep.starts_with(SWEEP.split("[plan]").next().expect("a beginning")));
    let lab = Lab::new(&sweep);
    let cluster = Cluster::start(&[("NODES", "6"), ("CPUS", "1")]);
    lab.run_study("local", &[]);
    cluster.run(&lab, &["submit", "sweep.toml", "--out", "study"]).expect_code(0);
    let study = lab.path("study");
    let runs: Vec<PathBuf> = {
        let mut runs: Vec<_> =
            std::fs::read_dir(study.join("runs")).expect("runs").flatten().map(|e| e.path()).collect();
        runs.sort();
        runs
    };
    // Each is met at work and stopped there, so that none ends before its turn.
    let mut met = std::collections::BTreeSet::new();
    cluster.wait_for("six runs at work", || {
        for run in &runs {
            let working = run.join("checkpoints").exists() && worker(run).is_some();
            if working && met.insert(run.clone()) {
                send(run, libc::SIGSTOP);
            }
        }
        met.len() == runs.len()
    });
    let [limited, requeued, preempted, killed, split, kept] = runs.as_slice() else { panic!("{runs:?}") };
    let status = cluster.json(&lab, &["status", "study"]);
    let job = |run: &Path, key: &str| {
        let name = run.file_name().and_then(|n| n.to_str()).expect("a name");
        let all = status["runs"].as_array().expect("runs");
        let row = all.iter().find(|r| r["id"] == name).expect("a row");
        row["job"][key].as_str().expect("text").to_owned()
    };

    // A worker killed -9 and one whose job is put back.
    kill_at_work(killed);
    send(requeued, libc::SIGCONT);
    cluster.ask("scontrol", &["requeue", &job(requeued, "id")]);
    // Preempted by a job that needs its node.
    send(preempted, libc::SIGCONT);
    let node = format!("--nodelist={}", job(preempted, "nodes"));
    cluster
        .ask("sbatch", &["--partition=high", &node, "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]);
    // Split brain: the node's daemon dies and Slurm gives the node up, while the run goes on there.
    let node = job(split, "nodes");
    cluster.signal(&format!("slurmd-{node}"), libc::SIGKILL);
    cluster.ask("scontrol", &["update", &format!("nodename={node}"), "state=down", "reason=test"]);
    cluster.wait_for("second copy", || {
        attempts(&study).iter().any(|l| l.starts_with(&format!("start {} 1 ", job(split, "id"))))
    });
    send(split, libc::SIGCONT);
    // The controller stops, and dies, and comes back.
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        cluster.signal("slurmctld", signal);
        std::thread::sleep(std::time::Duration::from_millis(500));
        cluster.start_again("slurmctld");
        cluster.wait_for("a controller", || cluster.says("scontrol", &["ping"], "is UP"));
    }
    // A limit of time, of which Slurm tells the worker.
    cluster.wait_for("signal before the limit of time", || has_been_sent(limited, libc::SIGUSR2));
    send(limited, libc::SIGCONT);
    if worker(kept).is_some() {
        send(kept, libc::SIGCONT);
    }
    cluster
        .run(&lab, &["wait", "study", "--resubmit", "--every", "1", "--timeout", "120"])
        .expect_code(0)
        .expect_words(&["6 done"]);

    assert_same(&results_of(&study), &results_of(&lab.path("local")));
    let lines = attempts(&study);
    assert!(
        lines.iter().any(|l| l.starts_with("end 75")) && lines.iter().any(|l| l.starts_with("end 137")),
        "{lines:?}"
    );
    let work = cluster.json(&lab, &["status", "study"])["work"].clone();
    assert!(work["attempts"].as_u64() >= Some(9) && work["steps_wasted"].as_u64() > Some(0), "{work}");
    cluster.start_again(&format!("slurmd-{node}"));
}

#[test]
fn what_slurm_could_not_start_and_holds_is_released() {
    let lab = Lab::new(&for_slurm("").replace("1e9, 2e9, 4e9", "1e9"));
    let (prolog, once) = (lab.path("prolog"), lab.path("once"));
    // Fails the first time.
    let text = format!("#!/bin/sh\n! mkdir {} 2>/dev/null\n", once.display());
    std::fs::write(&prolog, text).expect("written");
    std::fs::set_permissions(&prolog, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let cluster =
        Cluster::start(&[("NODES", "3"), ("CPUS", "1"), ("EXTRA", &format!("Prolog={}", prolog.display()))]);
    cluster.run(&lab, &["submit", "sweep.toml", "--out", "study"]).expect_code(0);
    let held = || cluster.queue("%T %r").into_iter().any(|row| row.to_lowercase().contains("requeued"));
    cluster.wait_for("job that Slurm holds", held);
    cluster
        .run(&lab, &["explain", "study"])
        .expect_code(0)
        .expect_words(&["is held as job", "it could not be started"]);
    let wait = ["wait", "study", "--resubmit", "--every", "1", "--timeout", "60"];
    cluster.run(&lab, &wait).expect_code(0).expect_words(&["which Slurm held", "3 done"]);
}
