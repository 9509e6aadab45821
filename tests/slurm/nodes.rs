//! A node that fails again and again is left out of further jobs, and every verb that should says so.

use crate::chains::stop_at_work;
use crate::cluster::{Cluster, for_slurm};
use crate::ends::send;
use crate::lab::{Lab, walk};

#[test]
fn a_node_that_lost_its_jobs_is_left_out() {
    let lab = Lab::new(&for_slurm("").replace("1e9, 2e9, 4e9", "4e10"));
    let cluster = Cluster::start(&[("NODES", "2"), ("CPUS", "3")]);
    let node = |name: &str, state: &str| {
        cluster.ask(
            "scontrol",
            &["update", &format!("nodename={name}"), &format!("state={state}"), "reason=test"],
        );
    };
    node("n2", "drain");
    cluster.run(&lab, &["submit", "sweep.toml", "--out", "study"]).expect_code(0);
    let runs: Vec<_> = {
        let runs = std::fs::read_dir(lab.path("study/runs")).expect("runs");
        runs.flatten().map(|entry| entry.path()).collect()
    };
    assert_eq!(runs.len(), 3);
    stop_at_work(&cluster, &runs.iter().map(|run| run.as_path()).collect::<Vec<_>>(), &[]);
    // A job that loses its node is over, and Slurm does not put it back.
    for task in cluster.queue("%i") {
        cluster.ask("scontrol", &["update", &format!("jobid={task}"), "requeue=0"]);
    }
    node("n1", "down");
    runs.iter().for_each(|run| send(run, libc::SIGCONT));
    cluster.wait_for("end of three jobs", || {
        let status = cluster.json(&lab, &["status", "study"]);
        status["runs"].as_array().expect("runs").iter().all(|r| r["cause"] == "node-fail")
    });
    node("n2", "resume");
    // The other comes back by itself, and would be taken again.
    let is_back = || cluster.says("sinfo", &["--noheader", "--nodes=n1", "--format=%t"], "idle");
    cluster.wait_for("node that is back", is_back);

    let words = ["left out of further jobs: n1 (3 jobs lost it or could not be started on it)"];
    cluster.run(&lab, &["status", "study"]).expect_code(0).expect_words(&words);
    cluster
        .run(&lab, &["explain", "study"])
        .expect_code(0)
        .expect_words(&words)
        .expect_words(&["lost its node"]);
    cluster
        .run(&lab, &["submit", "sweep.toml", "--out", "study", "--dry-run"])
        .expect_code(0)
        .expect_words(&words)
        .expect_words(&["--exclude=n1"]);
    cluster
        .run(&lab, &["submit", "sweep.toml", "--out", "study"])
        .expect_code(0)
        .expect_words(&words)
        .expect_words(&["3 submitted"]);
    cluster.run(&lab, &["wait", "study", "--every", "1"]).expect_code(0).expect_words(&["3 done"]);

    let ledgers = walk(&lab.path("study/slurm")).into_iter();
    let ledgers = ledgers.filter(|p| p.extension().is_some_and(|e| e == "attempts"));
    let text: String = ledgers.map(|p| std::fs::read_to_string(p).expect("text")).collect();
    let on = |node: &str| {
        let starts = text.lines().filter(|l| l.starts_with("start ") && l.contains(&format!(" {node} ")));
        starts.count()
    };
    assert_eq!([on("n1"), on("n2")], [3, 3], "{text}");
    // The journal remembers it when the runs are done; and each run knows how long a checkpoint takes.
    let status = cluster.json(&lab, &["status", "study"]);
    assert_eq!(status["left_out"][0]["node"], "n1", "{status}");
    let runs = status["runs"].as_array().expect("runs");
    assert!(runs.iter().all(|r| r["save_seconds"].as_f64().is_some_and(|s| s > 0.0)), "{status}");
}
