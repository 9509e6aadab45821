//! A sweep through Slurm to its end, and what each verb says of it on the way.

use crate::cluster::{Cluster, Wrapped, for_slurm};
use crate::lab::{Lab, assert_same, isoflop, results};
use crate::terminal::Terminal;
use std::collections::BTreeMap;
use std::path::Path;

/// The results of a study without what belongs to Slurm.
pub fn results_of(study: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = results(study);
    files.retain(|name, _| !name.starts_with("slurm/"));
    files
}

#[test]
fn a_sweep_ends_with_the_bytes_of_a_local_one() {
    let lab = Lab::new(&for_slurm("max_running = 4\n"));
    let cluster = Cluster::start(&[]);
    lab.run_study("local", &[]);
    let dry = cluster.run(&lab, &["submit", "sweep.toml", "--out", "study", "--dry-run"]).expect_code(0);
    dry.expect_words(&[
        "sbatch --parsable --job-name=tiny-TAG",
        "--array=0-8%4",
        "--time=00:10:00",
        "--mem=191M",
        "#!/bin/bash",
        "to start at",
        "nothing was submitted",
    ]);
    assert!(!lab.path("study").exists() && cluster.queue("%i").is_empty(), "a dry run left something");

    let args = ["submit", "sweep.toml", "--out", "study"];
    cluster
        .run(&lab, &args)
        .expect_code(0)
        .expect_words(&["9 runs, each 1 cpus, 191 MiB, 00:10:00", "9 submitted"]);
    cluster.run(&lab, &args).expect_code(0).expect_words(&["0 submitted"]);
    let wait = ["wait", "study", "--every", "1"];
    cluster.run(&lab, &wait).expect_code(0).expect_words(&["9 done, 0 in the queue"]);
    assert_same(&results_of(&lab.path("study")), &results_of(&lab.path("local")));

    // Nothing is left to ask Slurm for.
    cluster.run(&lab, &args).expect_code(0).expect_words(&["9 runs: 9 done, 0 had a job, 0 submitted"]);
    let status = cluster.json(&lab, &["status", "study"]);
    let runs = status["runs"].as_array().expect("runs");
    assert!(
        runs.len() == 9 && runs.iter().all(|r| r["state"] == "finished" && r["verdict"] == "done"),
        "{status}"
    );
    let id = runs[0]["id"].as_str().expect("a name");
    cluster.run(&lab, &["explain", "study", id]).expect_code(0).expect_words(&[id, "finished with loss"]);
    cluster.run(&lab, &["logs", "study", id, "-f"]).expect_code(0).expect_words(&[
        "job ",
        id,
        "ended with 0",
    ]);
    cluster.run(&lab, &["fit", "study"]).expect_code(0);
}

#[test]
fn what_waits_is_explained_cancelled_and_tried_again() {
    let lab = Lab::new(&for_slurm("sbatch = [\"--hold\"]"));
    let cluster = Cluster::start(&[("NODES", "1"), ("CPUS", "2")]);
    cluster.run(&lab, &["submit", "sweep.toml", "--out", "study"]).expect_code(0);
    cluster.run(&lab, &["explain", "study"]).expect_code(0).expect_words(&[
        "is held as job",
        "you hold it",
        "(JobHeldUser)",
    ]);
    let runs = cluster.json(&lab, &["status", "study"])["runs"].clone();
    let names: Vec<&str> = runs.as_array().expect("runs").iter().filter_map(|r| r["id"].as_str()).collect();
    assert!(runs.as_array().expect("runs").iter().all(|r| r["job"]["state"] == "held"), "{runs}");

    let cancelled = cluster.json(&lab, &["cancel", "study", names[0], names[1]]);
    assert_eq!(cancelled["cancelled"], serde_json::json!([names[0], names[1]]));
    assert_eq!(cluster.queue("%i").len(), 7);
    // The screen shows them too, and asks Slurm once however often it reads files.
    let wrapped = Wrapped::new(&lab, &["squeue", "sacct", "scontrol"], "");
    let mut command = lab.command("script".as_ref(), &[]);
    command.env("SLURM_CONF", cluster.conf());
    wrapped.put_before(&mut command);
    let line = format!("'{}' status study --watch --every 600", isoflop().display());
    let mut terminal = Terminal::start(command, &line);
    let shown = terminal.wait_for("9 runs: 7 queued, 2 cancelled");
    assert!(shown.contains("JobHeldUser") && shown.contains("asked again in"), "{shown}");
    terminal.press("ff");
    terminal.wait_for("show: cancelled");
    terminal.leave();
    let calls = wrapped.calls();
    assert_eq!((calls("squeue"), calls("sacct"), calls("scontrol")), (1, 1, 0));

    // A submission leaves cancelled runs alone; `retry` does not, and releases the held.
    cluster
        .run(&lab, &["submit", "sweep.toml", "--out", "study"])
        .expect_code(0)
        .expect_words(&["0 submitted, 2 cancelled"]);
    cluster.run(&lab, &["wait", "study", "--timeout", "1", "--every", "1"]).expect_code(75);
    cluster
        .run(&lab, &["explain", "study", names[0]])
        .expect_code(0)
        .expect_words(&["was cancelled at step 0"]);
    let no_hold = for_slurm("");
    std::fs::write(lab.path("sweep.toml"), no_hold).expect("written");
    cluster.run(&lab, &["submit", "sweep.toml", "--out", "study"]).expect_code(0);
    cluster
        .run(&lab, &["retry", "study"])
        .expect_code(0)
        .expect_words(&["released the job of", "2 submitted"]);
    cluster.run(&lab, &["wait", "study", "--every", "1"]).expect_code(0).expect_words(&["9 done"]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let lab = Lab::new(crate::lab::SWEEP);
    let cluster = Cluster::start(&[("NODES", "1")]);
    let submit = ["submit", "sweep.toml", "--out", "study"];
    cluster.run(&lab, &submit).expect_code(1).expect_words(&["kind = \"slurm\""]);
    std::fs::write(lab.path("sweep.toml"), for_slurm("partition = \"gpu\"")).expect("written");
    let words = ["`executor.partition` is `gpu`", "it has: main, low, high"];
    cluster.run(&lab, &submit).expect_code(1).expect_words(&words);
    cluster.run(&lab, &["cancel", "study"]).expect_code(1);
    assert!(!lab.path("study/runs").exists());

    std::fs::write(lab.path("sweep.toml"), for_slurm("")).expect("written");
    std::os::unix::fs::chown(lab.path("study"), Some(12_345), None).expect("root");
    cluster.run(&lab, &submit).expect_code(1).expect_words(&["belongs to user 12345"]);
    std::os::unix::fs::chown(lab.path("study"), Some(0), None).expect("root");

    // A cluster that refuses the jobs: what it says, and nothing counted as submitted.
    std::fs::write(lab.path("sweep.toml"), for_slurm("constraint = \"a100\"")).expect("written");
    cluster
        .run(&lab, &submit)
        .expect_code(1)
        .expect_words(&["sbatch refuses", "nothing was submitted twice or lost"]);
    std::fs::write(lab.path("sweep.toml"), for_slurm("")).expect("written");
    cluster.run(&lab, &submit).expect_code(0).expect_words(&["9 submitted"]);
    cluster.run(&lab, &["cancel", "study"]).expect_code(0).expect_words(&["runs cancelled"]);

    // Without a controller the files of the study are shown all the same.
    cluster.signal("slurmctld", libc::SIGTERM);
    cluster.wait_for("end of the controller", || !cluster.says("scontrol", &["ping"], "is UP"));
    cluster.run(&lab, &["status", "study"]).expect_code(0).expect_words(&["tokens/s", "cannot reach Slurm"]);
    cluster.start_again("slurmctld");
}
