//! Two programs that want the same study or the same run: one works, the other says why it does not.

use crate::lab::{Lab, SWEEP, assert_same, isoflop, results, run};
use crate::process::{Running, state, wait_for};
use std::path::Path;

/// The longest run of the sweep, which starts first.
const RUN: &str = "c4e9-nd16-s0";

/// Takes a finished run back to where only its configuration is there.
fn forget(run_dir: &Path) {
    for name in ["status.json", "metrics.csv", "metrics.json", "timings.csv"] {
        std::fs::remove_file(run_dir.join(name)).expect("a file of the run");
    }
    std::fs::remove_dir_all(run_dir.join("checkpoints")).expect("the checkpoints");
}

#[test]
fn one_study_has_one_isoflop_run() {
    let lab = Lab::new(SWEEP);
    let args = ["run", "sweep.toml", "--out", "study", "--jobs", "1"];
    let first = Running::start(&lab, &args);
    let run_dir = lab.path("study/runs").join(RUN);
    wait_for("a run at work", || state(&run_dir) == "running");
    first.signal(libc::SIGSTOP);
    let second = run(lab.command(isoflop(), &args)).expect_code(1);
    second.expect_words(&["another isoflop works on study", "Ctrl-C"]);
    first.signal(libc::SIGCONT);
    assert_eq!(first.wait().code(), Some(0));
    lab.run_study("alone", &[]);
    assert_same(&results(&lab.path("study")), &results(&lab.path("alone")));
}

#[test]
fn one_run_has_one_isoflop_train() {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &[]);
    let expected = results(&lab.path("study"));
    let run_dir = lab.path("study/runs").join(RUN);
    let args = ["train", &format!("study/runs/{RUN}")];

    forget(&run_dir);
    let first = Running::start(&lab, &args);
    wait_for("a run at work", || state(&run_dir) == "running");
    first.signal(libc::SIGSTOP);
    let owner = format!("owned by process {}", first.id());
    let second = run(lab.command(isoflop(), &args)).expect_code(77);
    second.expect_words(&[&owner, "lease.json", "stop it first"]);

    // A study waits for the worker that somebody started by hand instead of failing the run.
    let mut whole = Running::start(&lab, &["run", "sweep.toml", "--out", "study"]);
    wait_for("an attempt of the study", || run_dir.join("logs/2/worker.log").exists());
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert!(!whole.has_ended(), "the study gave the run up");
    first.signal(libc::SIGCONT);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(whole.wait().code(), Some(0));
    assert_same(&results(&lab.path("study")), &expected);
}
