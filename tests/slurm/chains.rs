//! Runs that are longer than a job may be: chains of segments, to their end.

use crate::cluster::{Cluster, Wrapped};
use crate::ends::{has_been_sent, send, worker};
use crate::lab::{Lab, assert_same, run, walk};
use crate::whole::results_of;
use std::path::Path;

/// Two runs of some seconds, for a device of which isoflop believes that it takes minutes for each.
const SWEEP: &str = r#"
[sweep]
name = "long"
seeds = [0, 1]

[family]
vocab_size = 256
seq_len = 32
shape = [{ name = "d16", n_layers = 1, n_heads = 1, d_head = 16, d_model = 16 }]

[plan]
kind = "isoflop"
flops = [4e10]
device = "slow.toml"

[train]
batch_tokens = 512
lr = { rule = "width", base = 0.16 }
validations = 4
validation_sequences = 64
checkpoints = 8

[data]
train = "corpus"

[executor]
kind = "slurm"
mem = "200MB"
partition = "short"
"#;

/// A partition whose jobs may take a minute and give way to others.
const SHORT: &str =
    "PartitionName=short Nodes=ALL MaxTime=1 DefMemPerCPU=100 PriorityTier=1 PreemptMode=requeue";

fn lab() -> Lab {
    let lab = Lab::new(SWEEP);
    let cpu = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/devices/cpu.toml");
    let cpu = std::fs::read_to_string(cpu).expect("a device");
    let slow = cpu.replace("launch_seconds = 0.02e-6", "launch_seconds = 0.5e-3");
    assert_ne!(slow, cpu);
    std::fs::write(lab.path("slow.toml"), slow).expect("written");
    lab
}

/// One time that a segment had a run. Times are seconds since 1970.
#[derive(Debug)]
struct Attempt {
    start: u64,
    end: u64,
    code: i32,
}

/// Attempts at a run by all segments of its chain, in the order in which they began.
fn attempts(study: &Path, run: &Path) -> Vec<Attempt> {
    let name = run.file_name().and_then(|n| n.to_str()).expect("a name");
    let mut all = Vec::new();
    for file in
        walk(&study.join("slurm")).into_iter().filter(|p| p.extension().is_some_and(|e| e == "attempts"))
    {
        let runs = std::fs::read_to_string(file.with_file_name("runs")).expect("runs");
        if runs.split('\0').any(|r| r == name) {
            let text = std::fs::read_to_string(&file).expect("text");
            let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
            let lines: Vec<Vec<String>> = text.lines().map(words).collect();
            for pair in lines.chunks(2) {
                let [start, end] = pair else { panic!("a start without an end: {text}") };
                assert_eq!((start[0].as_str(), end[0].as_str()), ("start", "end"), "{text}");
                let number = |word: &str| word.parse().expect("a number");
                let code = i32::try_from(number(&end[1])).expect("a code");
                all.push(Attempt { start: number(&start[4]), end: number(&end[2]), code });
            }
        }
    }
    all.sort_by_key(|a: &Attempt| (a.start, a.end));
    all
}

/// Steps of a run's timings, each with the number of the process that did it.
fn steps(run: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(run.join("timings.csv")).expect("timings");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].parse().expect("a step"), fields[4].parse().expect("an attempt"))
    };
    text.lines().skip(1).map(row).collect()
}

/// Nothing of a run was done twice, and never by two at once: attempts follow each other, and so do steps. `codes` are those
/// with which the attempts ended.
#[track_caller]
fn one_after_the_other(study: &Path, run: &Path, codes: &[i32]) {
    let attempts = attempts(study, run);
    assert_eq!(attempts.iter().map(|a| a.code).collect::<Vec<_>>(), codes, "{attempts:?}");
    assert!(attempts.windows(2).all(|pair| pair[1].start >= pair[0].end), "{attempts:?}");
    let steps = steps(run);
    assert!(steps.windows(2).all(|pair| pair[1].0 > pair[0].0 && pair[1].1 >= pair[0].1), "{steps:?}");
}

/// Stops the workers of runs at work, each as soon as there is one which is none of `before`; returns their processes.
#[track_caller]
pub fn stop_at_work(cluster: &Cluster, runs: &[&Path], before: &[i32]) -> Vec<i32> {
    let mut found = vec![None; runs.len()];
    cluster.wait_for("workers at work", || {
        for (run, found) in runs.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let status = std::fs::read_to_string(run.join("status.json")).unwrap_or_default();
            *found = worker(run).filter(|pid| !before.contains(pid) && status.contains("\"running\""));
            if found.is_some() {
                send(run, libc::SIGSTOP);
            }
        }
        found.iter().all(Option::is_some)
    });
    found.into_iter().flatten().collect()
}

#[test]
fn chains_go_from_segment_to_segment_to_the_bytes_of_an_unbroken_run() {
    let lab = lab();
    let cluster = Cluster::start(&[("NODES", "3"), ("CPUS", "1"), ("EXTRA", SHORT)]);
    cluster
        .run(&lab, &["submit", "sweep.toml", "--out", "study"])
        .expect_code(0)
        .expect_words(&["3 segments of c4e10-nd16-s0", "00:01:00"]);
    let study = lab.path("study");
    let [limited, preempted] = ["s0", "s1"].map(|seed| study.join("runs").join(format!("c4e10-nd16-{seed}")));
    let job = |run: &Path, key: &str| {
        let status = cluster.json(&lab, &["status", "study"]);
        let all = status["runs"].as_array().expect("runs");
        let row = all.iter().find(|r| run.ends_with(r["id"].as_str().expect("a name"))).expect("a row");
        row["job"][key].as_str().expect("text").to_owned()
    };

    // The first segment of each works, and the next are in the queue already.
    let first = stop_at_work(&cluster, &[&limited, &preempted], &[]);
    let queue = cluster.queue("%K %T %r");
    assert_eq!(queue.iter().filter(|row| row.ends_with("PENDING JobArrayTaskLimit")).count(), 4, "{queue:?}");
    let limited_job = job(&limited, "id");

    // One is preempted by a job that needs its node: the next segment goes on elsewhere, at once.
    let node = format!("--nodelist={}", job(&preempted, "nodes"));
    let wrap = "--wrap=sleep 1";
    cluster.ask("sbatch", &["--partition=high", &node, "--exclusive", "--output=/dev/null", wrap]);
    // It goes on to save once it is told, and not to its end before.
    cluster.wait_for("preemption", || {
        worker(&preempted) != Some(first[1]) || has_been_sent(&preempted, libc::SIGTERM)
    });
    // SAFETY: kill has no memory effects. Where the process has ended meanwhile nothing is to be done.
    unsafe { libc::kill(first[1], libc::SIGCONT) };
    stop_at_work(&cluster, &[&preempted], &first);
    send(&preempted, libc::SIGCONT);

    // Of another study nobody can take the rest of a chain back: each segment after the last step ends at once.
    let wrapped = Wrapped::new(&lab, &["scancel"], "exit 1");
    let mut command = cluster.command(&lab, &["submit", "sweep.toml", "--out", "kept"]);
    wrapped.put_before(&mut command);
    run(command).expect_code(0);
    // What all should come to.
    lab.run_study("local", &[]);

    // The other is told by Slurm before its limit, the next as Slurm would, and the third goes to the end.
    cluster.wait_for("signal before the limit of time", || has_been_sent(&limited, libc::SIGUSR2));
    send(&limited, libc::SIGCONT);
    stop_at_work(&cluster, &[&limited], &first);
    let next_job = job(&limited, "id");
    assert_ne!(next_job, limited_job);
    cluster.ask("scancel", &["--batch", "--signal=USR2", &next_job]);
    cluster.wait_for("signal", || has_been_sent(&limited, libc::SIGUSR2));
    send(&limited, libc::SIGCONT);

    for name in ["study", "kept"] {
        let wait = ["wait", name, "--every", "1", "--timeout", "60"];
        cluster.run(&lab, &wait).expect_code(0).expect_words(&["2 done"]);
        assert_same(&results_of(&lab.path(name)), &results_of(&lab.path("local")));
    }
    cluster.wait_for("end of all segments", || cluster.queue("%i").is_empty());
    one_after_the_other(&study, &limited, &[75, 75, 0]);
    one_after_the_other(&study, &preempted, &[75, 0]);
    for seed in ["s0", "s1"] {
        let kept = lab.path("kept");
        let run = kept.join(format!("runs/c4e10-nd16-{seed}"));
        one_after_the_other(&kept, &run, &[0, 0, 0]);
        assert!(steps(&run).iter().all(|(_, attempt)| *attempt == 1), "a run that was finished was taken");
    }
}
