//! The Gopher family on an emulated cluster of 64 nodes of eight GPUs: what Slurm is asked for against the plan, and what the
//! ranks of every job find there.

use crate::cluster::Cluster;
use crate::lab::Lab;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Partitions as in sweeps/examples/cluster.toml.
const PARTITIONS: &str = "PartitionName=gpu Nodes=ALL MaxTime=2-00:00:00 State=UP\n\
                          PartitionName=small Nodes=ALL MaxNodes=2 MaxTime=7-00:00:00 State=UP";

fn cluster(nodes: &str) -> Cluster {
    Cluster::start(&[("NODES", nodes), ("GPUS", "8"), ("CPUS", "16"), ("EXTRA", PARTITIONS)])
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/examples").join(name);
    std::fs::read_to_string(path).expect("an example")
}

/// A lab with the examples, whose jobs wait until they are released.
fn lab() -> Lab {
    let held = example("gopher.toml").replace("kind = \"slurm\"", "kind = \"slurm\"\nsbatch = [\"--hold\"]");
    assert!(held.contains("--hold"));
    let lab = Lab::new(&held);
    std::fs::write(lab.path("cluster.toml"), example("cluster.toml")).expect("written");
    lab
}

/// `KEY=VALUE` of one line of `scontrol --oneliner show job`.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split_whitespace().filter_map(|word| word.split_once('=')).collect()
}

/// The run of each job that a submission reported.
fn jobs(report: &Value) -> BTreeMap<u64, String> {
    let submitted = report["submitted"].as_array().expect("submitted");
    let job =
        |s: &Value| (s["job"].as_u64().expect("a job"), s["runs"][0].as_str().expect("a run").to_owned());
    submitted.iter().map(job).collect()
}

const SUBMIT: [&str; 7] = ["submit", "sweep.toml", "--out", "study", "--cluster", "cluster.toml", "--check"];

#[test]
fn the_gopher_family_is_accepted_whole_and_every_rank_finds_its_place() {
    let lab = lab();
    let cluster = cluster("64");
    // Every layout names its partition: no default is needed.
    cluster.ask("scontrol", &["update", "PartitionName=main", "Default=NO"]);
    let plan = cluster.json(&lab, &["plan", "sweep.toml", "--cluster", "cluster.toml"]);
    let planned = |run: &str| {
        let runs = plan["runs"].as_array().expect("runs");
        runs.iter().find(|r| r["id"] == run).expect("a planned run")["chosen"].clone()
    };
    let report = cluster.json(&lab, &SUBMIT);
    let jobs = jobs(&report);
    assert_eq!(jobs.len(), 6, "{report}");
    for (job, run) in &jobs {
        let plan = planned(run);
        let (gpus, nodes, segments) =
            (&plan["gpus"], &plan["nodes"], plan["segments"].as_u64().expect("jobs"));
        let said = cluster.ask("scontrol", &["--oneliner", "show", "job", &job.to_string()]);
        let slurm = fields(said.lines().next().expect("a job"));
        let (gpus, nodes) = (gpus.as_u64().expect("GPUs"), nodes.as_u64().expect("nodes"));
        assert_eq!(slurm["Partition"], plan["partition"].as_str().expect("a partition"), "{run}: {said}");
        assert_eq!(slurm["NumNodes"].split('-').next(), Some(nodes.to_string().as_str()), "{run}: {said}");
        assert_eq!(slurm["NumTasks"], gpus.to_string(), "{run}: {said}");
        assert_eq!(slurm["TresPerNode"], format!("gres:gpu:{}", gpus / nodes), "{run}: {said}");
        let array = if segments == 1 { "0".to_owned() } else { format!("0-{}%1", segments - 1) };
        assert_eq!(slurm["ArrayTaskId"], array, "{run}: {said}");
        let limit = if slurm["Partition"] == "gpu" { "2-00:00:00" } else { "7-00:00:00" };
        assert!(segments == 1 || slurm["TimeLimit"] == limit, "{run}: {said}");
    }
    let largest = planned("d3e11-n280B-s0");
    assert!(
        largest["gpus"].as_u64() >= Some(64) && largest["layout"]["pipeline"].as_u64() > Some(1),
        "{largest}"
    );

    // The same command again submits nothing.
    cluster.run(&lab, &SUBMIT).expect_code(0).expect_words(&["6 had a job, 0 submitted"]);
    assert_eq!(cluster.ask("squeue", &["--noheader", "--format=%A"]).lines().count(), 6);

    cluster.run(&lab, &["retry", "study"]).expect_code(0).expect_words(&["released the job of"]);
    cluster.run(&lab, &["wait", "study", "--every", "1"]).expect_code(0).expect_words(&["6 done"]);
    cluster.run(&lab, &["explain", "study", "d3e11-n280B-s0"]).expect_code(0).expect_words(&[
        "was checked",
        "tp8+sp",
        "every rank is in its place",
    ]);
    for run in jobs.values() {
        let text = std::fs::read(lab.path("study/runs").join(run).join("check/hosts.json")).expect("hosts");
        let hosts: BTreeMap<String, Vec<u64>> = serde_json::from_slice(&text).expect("hosts");
        let plan = planned(run);
        assert_eq!(Some(hosts.len() as u64), plan["nodes"].as_u64(), "{run}: {hosts:?}");
        let mut ranks: Vec<u64> = hosts.into_values().flatten().collect();
        ranks.sort_unstable();
        assert!(ranks.into_iter().eq(0..plan["gpus"].as_u64().expect("GPUs")), "{run}");
    }
    // What was left of the chains went with the run.
    cluster.wait_for("end of all segments", || cluster.queue("%i").is_empty());
    cluster.run(&lab, &SUBMIT).expect_code(0).expect_words(&["6 runs: 6 done", "0 submitted"]);
}

#[test]
fn a_layout_that_does_not_hold_is_said_and_can_be_tried_again() {
    let lab = lab();
    let cluster = cluster("2");
    // Without --check nothing could train, and 16 nodes are not here.
    cluster.run(&lab, &SUBMIT[..6]).expect_code(1).expect_words(&["trains on CPUs only", "--check"]);
    cluster
        .run(&lab, &SUBMIT)
        .expect_code(1)
        .expect_words(&["sbatch refuses", "nothing was submitted twice or lost"]);
    assert!(cluster.queue("%i").is_empty() || !cluster.queue("%j %D").iter().any(|job| job.ends_with(" 16")));
    cluster.run(&lab, &["cancel", "study"]);

    // The two smallest fit. Their sweep has a directory of its own.
    let small = std::fs::read_to_string(lab.path("sweep.toml")).expect("a sweep");
    let small = small
        .replace(r#"sizes = ["44M", "117M", "417M", "1.4B", "7.1B", "280B"]"#, r#"sizes = ["44M", "7.1B"]"#);
    std::fs::write(lab.path("sweep.toml"), small).expect("written");
    cluster.run(&lab, &SUBMIT).expect_code(1).expect_words(&["belongs to another sweep"]);
    let submit = ["submit", "sweep.toml", "--out", "two", "--cluster", "cluster.toml", "--check"];
    cluster.run(&lab, &submit).expect_code(0).expect_words(&["1 node of 8 GPUs in small", "2 submitted"]);
    // One run on CPUs in it would be another kind of study.
    cluster.run(&lab, &["run", "sweep.toml", "--out", "two"]).expect_code(1);

    // Somebody's node has lost GPUs: the layout wants more of them than there are.
    let path = lab.path("two/runs/d3e11-n44M-s0/layout.toml");
    let good = std::fs::read_to_string(&path).expect("a layout");
    let bad = good
        .replace("\ngpus = 1\n", "\ngpus = 2\n")
        .replace("\ngpus_per_node = 1\n", "\ngpus_per_node = 2\n");
    assert_ne!(good, bad);
    std::fs::write(&path, bad).expect("written");
    cluster.run(&lab, &["retry", "two"]).expect_code(0);
    cluster
        .run(&lab, &["wait", "two", "--every", "1"])
        .expect_code(1)
        .expect_words(&["1 done", "1 given up"]);
    cluster
        .run(&lab, &["explain", "two", "d3e11-n44M-s0"])
        .expect_code(0)
        .expect_words(&["GPUs of the node 1, planned 2", "isoflop retry"]);
    std::fs::write(&path, good).expect("written");
    cluster.run(&lab, &["retry", "two", "--failed"]).expect_code(0).expect_words(&["1 submitted"]);
    cluster.run(&lab, &["retry", "two"]).expect_code(0);
    cluster.run(&lab, &["wait", "two", "--every", "1"]).expect_code(0).expect_words(&["2 done"]);
}
