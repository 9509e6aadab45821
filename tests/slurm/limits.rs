//! Limits of the cluster, with and without accounts, and what asking it costs.

use crate::cluster::{Cluster, Wrapped, for_slurm};
use crate::lab::{Lab, run};
use std::time::Instant;

#[test]
fn two_thousand_runs_are_two_calls_of_sbatch() {
    let seeds: Vec<String> = (0..2_000).map(|seed| seed.to_string()).collect();
    let sweep = format!(
        "[sweep]\nname = \"many\"\nseeds = [{}]\n[family]\nvocab_size = 256\nseq_len = 32\nshape = [{{ name = \"d16\", \
         n_layers = 1, n_heads = 1, d_head = 16, d_model = 16 }}]\n[plan]\nkind = \"grid\"\ntokens = [6e3]\nmin_steps = 1\n\
         [train]\nbatch_tokens = 512\nlr = 0.001\nvalidation_sequences = 4\n[data]\ntrain = \"corpus\"\n[executor]\n\
         kind = \"slurm\"\nsbatch = [\"--hold\"]\n",
        seeds.join(", ")
    );
    let lab = Lab::new(&sweep);
    let cluster = Cluster::start(&[("NODES", "64"), ("GPUS", "8"), ("EXTRA", "MaxArraySize=1001")]);
    let wrapped = Wrapped::new(&lab, &["sbatch", "squeue", "sacct", "scontrol", "sinfo", "sacctmgr"], "");
    let timed = |args: &[&str]| {
        let mut command = cluster.command(&lab, args);
        wrapped.put_before(&mut command);
        let began = Instant::now();
        let ended = run(command).expect_code(0);
        (began.elapsed().as_secs_f64(), wrapped.calls(), ended)
    };
    let submit = ["submit", "sweep.toml", "--out", "study"];
    let (first, calls, ended) = timed(&submit);
    ended.expect_words(&["2000 runs: 0 done, 0 had a job, 2000 submitted"]);
    assert_eq!((calls("sbatch"), calls("squeue"), calls("sacct"), calls("scontrol")), (2, 0, 0, 4));
    assert_eq!(cluster.queue("%i").len(), 2_000);
    let (again, calls, ended) = timed(&submit);
    ended.expect_words(&["2000 had a job, 0 submitted"]);
    assert_eq!((calls("sbatch"), calls("squeue"), calls("sacct")), (0, 1, 0));
    let (status, calls, _) = timed(&["status", "study", "--output", "json"]);
    assert_eq!((calls("squeue"), calls("sacct"), calls("scontrol")), (1, 0, 0));
    println!("2,000 runs: submitted in {first:.2} s, again in {again:.2} s, status in {status:.2} s");
}

#[test]
fn a_limit_of_submitted_jobs_is_kept_and_the_rest_follows() {
    let lab = Lab::new(&for_slurm(""));
    let cluster = Cluster::start(&[("DB", "1"), ("NODES", "2")]);
    cluster.ask("sacctmgr", &["-i", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=5"]);
    let wrapped = Wrapped::new(&lab, &["squeue", "sacct"], "");
    let submit = ["submit", "sweep.toml", "--out", "study"];
    let words = [
        "5 runs, each",
        "5 submitted, 0 cancelled, 0 given up, 4 without room",
        "MaxSubmitJobs of QOS normal is reached",
    ];
    cluster.run(&lab, &submit).expect_code(75).expect_words(&words);
    let wait = ["wait", "study", "--resubmit", "--every", "1"];
    cluster.run(&lab, &wait).expect_code(0).expect_words(&["9 done, 0 in the queue, 0 left"]);
    // The accounts follow some seconds behind.
    let rows = || {
        let args = ["--noheader", "--parsable2", "--allocations", "--duplicates", "--format=State"];
        cluster.ask("sacct", &args).lines().filter(|state| *state == "COMPLETED").count()
    };
    cluster.wait_for("account of nine runs", || rows() >= 9);
    assert_eq!(rows(), 9, "a run was doubled");

    // A run that failed: Slurm has forgotten nothing, and one squeue and one sacct tell.
    let broken = lab.path("study/runs");
    let first = std::fs::read_dir(&broken).expect("runs").flatten().next().expect("a run").path();
    std::fs::remove_file(first.join("status.json")).expect("a status");
    std::fs::remove_dir_all(first.join("checkpoints")).expect("checkpoints");
    let config = std::fs::read_to_string(first.join("config.toml")).expect("a configuration");
    std::fs::write(first.join("config.toml"), config.replace("\nseq_len = 32", "\nseq_len = 16"))
        .expect("written");
    let id = first.file_name().expect("a name").to_str().expect("UTF-8");
    cluster.run(&lab, &["retry", "study", id]).expect_code(0).expect_words(&["1 submitted"]);
    cluster.run(&lab, &["wait", "study", "--every", "1"]).expect_code(1).expect_words(&["1 given up"]);
    let mut command = cluster.command(&lab, &["explain", "study"]);
    wrapped.put_before(&mut command);
    run(command).expect_code(0).expect_words(&[id, "failed", "isoflop retry"]);
    let calls = wrapped.calls();
    assert_eq!((calls("squeue"), calls("sacct")), (1, 1));
}
