//! Submissions that are killed at each of their steps, that meet another, or that find no room on the disk: no run is
//! ever without a job or with two.

use crate::cluster::{Cluster, Wrapped, for_slurm};
use crate::lab::{Lab, run, walk};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

const SUBMIT: [&str; 4] = ["submit", "sweep.toml", "--out", "study"];

/// Every run of the study has one task in the queue, and there is no other task.
#[track_caller]
fn every_run_has_one_job(cluster: &Cluster, lab: &Lab, context: &str) {
    let mut tasks = cluster.queue("%i");
    tasks.sort();
    let status = cluster.json(lab, &["status", "study"]);
    let mut jobs: Vec<String> = status["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| run["job"]["id"].as_str().unwrap_or("none").to_owned())
        .collect();
    jobs.sort();
    assert_eq!((tasks.len(), &tasks), (9, &jobs), "{context}");
}

fn copy(from: &Path, to: &Path) {
    for file in walk(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        std::fs::copy(&file, &target).expect("a copy");
    }
}

#[test]
fn killed_at_every_step_no_run_is_lost_or_doubled() {
    let lab = Lab::new(&for_slurm("sbatch = [\"--hold\"]"));
    // Two arrays.
    let cluster = Cluster::start(&[("NODES", "1"), ("EXTRA", "MaxArraySize=6")]);
    lab.run_study("prepared", &["--prepare-only"]);
    let mut step = 0;
    loop {
        step += 1;
        let _ = std::fs::remove_dir_all(lab.path("study"));
        copy(&lab.path("prepared"), &lab.path("study"));
        let mut command = cluster.command(&lab, &SUBMIT);
        command.env("ISOFLOP_DIE_AT_STEP", step.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let ended = command.status().expect("isoflop");
        let context = format!("killed at step {step}");
        if ended.signal() == Some(libc::SIGKILL) {
            cluster.run(&lab, &SUBMIT).expect_code(0);
        } else {
            assert!(ended.success(), "{context}: {ended}");
        }
        every_run_has_one_job(&cluster, &lab, &context);
        cluster.ask("scancel", &["--user=root"]);
        if ended.success() {
            break;
        }
    }
    assert!(step > 15, "only {step} steps");
}

#[test]
fn of_two_at_once_one_submits_and_the_other_is_told() {
    let lab = Lab::new(&for_slurm("sbatch = [\"--hold\"]"));
    let cluster = Cluster::start(&[("NODES", "1")]);
    lab.run_study("study", &["--prepare-only"]);
    let slow = Wrapped::new(&lab, &["sbatch"], "sleep 2");
    let mut first = cluster.command(&lab, &SUBMIT);
    slow.put_before(&mut first);
    let first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isoflop");
    let calls = lab.path("bin/calls");
    cluster.wait_for("call of sbatch", || calls.exists());
    cluster.run(&lab, &SUBMIT).expect_code(1).expect_words(&["another isoflop works on"]);
    let first = first.wait_with_output().expect("a child of ours");
    assert!(first.status.success());
    every_run_has_one_job(&cluster, &lab, "two at once");
}

#[test]
fn an_sbatch_that_answers_too_late_or_never_doubles_nothing() {
    let lab = Lab::new(&for_slurm("sbatch = [\"--hold\"]"));
    let cluster = Cluster::start(&[("NODES", "1")]);
    lab.run_study("study", &["--prepare-only"]);
    // The job is made, and then the answer is that of a controller which is away.
    let lost = "if [ ! -e lost ]; then touch lost; /usr/bin/sbatch \"$@\" >/dev/null; \
                echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1; fi";
    let mut command = cluster.command(&lab, &SUBMIT);
    Wrapped::new(&lab, &["sbatch"], lost).put_before(&mut command);
    run(command).expect_code(0).expect_words(&["found again after a crash", "9 submitted"]);
    every_run_has_one_job(&cluster, &lab, "a lost answer");
}

#[test]
fn a_full_disk_is_named_and_leaves_the_journal_as_it_was() {
    let lab = Lab::new(&for_slurm("sbatch = [\"--hold\"]"));
    let cluster = Cluster::start(&[("NODES", "1")]);
    lab.run_study("study", &["--prepare-only"]);
    // A journal that ends just below the size that files may have.
    let journal = lab.path("study/slurm/journal.jsonl");
    std::fs::create_dir(lab.path("study/slurm")).expect("a folder");
    let record = |host: &str| {
        format!("{{\"record\":\"opened\",\"session\":\"0\",\"host\":\"{host}\",\"pid\":1,\"time\":1}}\n")
    };
    let size = 128 * 1024 - 200;
    let text = record(&"h".repeat(size - record("").len()));
    std::fs::write(&journal, &text).expect("written");
    let mut command = cluster.command(&lab, &[]);
    let full = "trap '' XFSZ; ulimit -f 128; exec \"$0\" submit sweep.toml --out study";
    let program = command.get_program().to_owned();
    let envs: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    command = std::process::Command::new("bash");
    command.args(["-c", full]).arg(program).envs(envs).current_dir(lab.path("."));
    run(command).expect_code(1).expect_words(&["journal.jsonl", "free space"]);
    assert!(cluster.queue("%i").is_empty(), "a job that the journal does not know");
    let left = std::fs::read_to_string(&journal).expect("a journal");
    assert!(left.starts_with(&text) && left.ends_with('\n'), "a torn journal");
    cluster.run(&lab, &SUBMIT).expect_code(0);
    every_run_has_one_job(&cluster, &lab, "room again");
}
