//! Studies that are killed and stopped: nothing that was done is lost or done again, and no byte of a result changes.

use crate::lab::{Ended, Lab, SWEEP, assert_same, isoflop, results, run};
use crate::process::{Running, children_of, send, state, wait_for};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A sweep whose runs take long enough to be met at work.
fn longer() -> String {
    SWEEP.replace("1e9, 2e9, 4e9", "2e9, 4e9, 8e9")
}

/// Of each finished run what changes with every attempt: its owner and its status.
fn finished(study: &Path) -> BTreeMap<String, [Vec<u8>; 2]> {
    let Ok(runs) = std::fs::read_dir(study.join("runs")) else { return BTreeMap::new() };
    let dirs = runs.map(|entry| entry.expect("an entry").path());
    let done = dirs.filter(|dir| state(dir) == "finished").map(|dir| {
        let files = ["lease.json", "status.json"].map(|name| std::fs::read(dir.join(name)).expect("a file"));
        (dir.display().to_string(), files)
    });
    done.collect()
}

/// Some run of the study is at work.
fn at_work(study: &Path) -> bool {
    let Ok(runs) = std::fs::read_dir(study.join("runs")) else { return false };
    runs.flatten().any(|entry| state(&entry.path()) == "running")
}

/// Runs the study to its end and compares it with one that nothing happened to.
#[track_caller]
fn complete_as(lab: &Lab, study: &str, undisturbed: &str) -> Ended {
    let ended = lab.run_study(study, &[]).expect_words(&["9 finished, 0 diverged, 0 failed, 0 left"]);
    assert_same(&results(&lab.path(study)), &results(&lab.path(undisturbed)));
    ended
}

#[test]
fn killed_again_and_again() {
    let lab = Lab::new(&longer());
    lab.run_study("undisturbed", &[]);
    let study = lab.path("killed");
    let mut done = BTreeMap::new();
    let mut kills_at_work = 0;
    // From within the compilation to within the runs; every second time the workers go at the same instant.
    for (round, after) in [30, 400, 90, 250, 60, 330, 150, 500].into_iter().enumerate() {
        let mut running = Running::start(&lab, &["run", "sweep.toml", "--out", "killed", "--jobs", "2"]);
        std::thread::sleep(Duration::from_millis(after));
        kills_at_work += usize::from(!running.has_ended());
        running.kill(round % 2 == 0);
        let now = finished(&study);
        assert!(done.iter().all(|(id, files)| now.get(id) == Some(files)), "a finished run was done again");
        done = now;
    }
    assert!(kills_at_work >= 4, "only {kills_at_work} kills met the study at work");
    let ended = complete_as(&lab, "killed", "undisturbed");
    let now = finished(&study);
    assert!(done.iter().all(|(id, files)| now.get(id) == Some(files)), "a finished run was done again");
    for line in ended.said.lines().filter(|line| line.starts_with("start ")) {
        let id = line.split_whitespace().nth(1).expect("a run");
        assert!(
            !done.keys().any(|dir| dir.ends_with(&format!("/{id}"))),
            "{id} was finished: {}",
            ended.said
        );
    }
}

#[test]
fn a_killed_worker_is_told_and_made_up_for() {
    let lab = Lab::new(&longer());
    lab.run_study("undisturbed", &[]);
    let mut command = lab.command(isoflop(), &["run", "sweep.toml", "--out", "study", "--jobs", "1"]);
    let parent = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let parent = parent.expect("isoflop starts");
    let study = lab.path("study");
    wait_for("a run at work", || at_work(&study));
    // Stopped, the parent cannot take leave of a worker, whose process id so stays its own.
    send(parent.id(), libc::SIGSTOP);
    let workers = children_of(parent.id());
    workers.iter().for_each(|worker| send(*worker, libc::SIGKILL));
    send(parent.id(), libc::SIGCONT);
    let output = parent.wait_with_output().expect("a child of ours");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!((workers.len(), output.status.code()), (1, Some(1)), "{said}");
    assert!(
        said.contains("signal: 9") && said.contains("8 finished, 0 diverged, 1 failed, 0 left"),
        "{said}"
    );
    let status = run(lab.command(isoflop(), &["status", "study"])).expect_code(0);
    status.expect_words(&["interrupted", "its worker is gone; it goes on from its last checkpoint"]);
    complete_as(&lab, "study", "undisturbed").expect_words(&["8 of 9 runs are done already"]);
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let lab = Lab::new(&longer());
    lab.run_study("undisturbed", &[]);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let name = format!("stopped-{signal}");
        let study = lab.path(&name);
        let running = Running::start(&lab, &["run", "sweep.toml", "--out", &name, "--jobs", "2"]);
        wait_for("a run at work", || at_work(&study));
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(75), "EX_TEMPFAIL: come again");
        assert!(!at_work(&study) && finished(&study).len() < 9);
        let done = finished(&study);
        complete_as(&lab, &name, "undisturbed");
        let now = finished(&study);
        assert!(done.iter().all(|(id, files)| now.get(id) == Some(files)), "a finished run was done again");
    }
}
