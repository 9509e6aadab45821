//! Approach 3 beside scipy on the 240 synthetic runs: one fit, the 4,500 published starts, and 4,000 re-fits to resamples.
//!
//!     cargo bench -p isoflop-sweeps --bench fit -- --peer PYTHON --csv FILE
//!
//! Without `--peer` only our figures are printed. Ours are minima of rounds before and after scipy's one run; scipy's
//! re-fits are timed on 100 resamples, and what 4,000 would take is said to be extrapolated.

use isoflop_sweeps::fit::{FitOptions, FitReport, RunRecord, Starts, fit_runs, read_runs};
use serde::Deserialize;
use std::process::Command;
use std::time::Instant;

const RUNS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chinchilla_synthetic.csv");
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers/fit_scipy.py");
const ROUNDS: usize = 6;
const REFITS: usize = 4000;

/// What the peer prints.
#[derive(Deserialize)]
struct Peer {
    seconds: f64,
    objective: f64,
    count: usize,
}

struct Task {
    name: &'static str,
    options: FitOptions,
    /// The peer's mode, and its count for what it is timed on.
    peer: [&'static str; 2],
    /// How many times the peer's count our task does.
    peer_times: f64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    let runs = match read_runs(RUNS) {
        Ok(runs) => runs,
        Err(e) => return eprintln!("{e}"),
    };
    let options =
        |bootstrap, starts| FitOptions { approaches: vec![3], bootstrap, starts, ..FitOptions::default() };
    let tasks = [
        Task {
            name: "one fit",
            options: options(0, Starts::Projection),
            peer: ["grid", "4500"],
            peer_times: 1.0,
        },
        Task {
            name: "4,500 starts",
            options: options(0, Starts::Grid),
            peer: ["grid", "4500"],
            peer_times: 1.0,
        },
        Task {
            name: "4,000 re-fits",
            options: options(REFITS, Starts::Projection),
            peer: ["refits", "100"],
            peer_times: REFITS as f64 / 100.0,
        },
    ];
    let mut csv = String::from("task,competitor,seconds,extrapolated,objective,ratio_to_scipy\n");
    let mut grid: Option<Peer> = None;
    for task in &tasks {
        let (mut best, objective) = ours(&runs, task);
        let peer = match (value("--peer"), grid.take()) {
            (_, Some(known)) if task.peer[0] == "grid" => Some(known),
            (Some(python), _) => ask(&python, task.peer),
            (None, _) => None,
        };
        best = best.min(ours(&runs, task).0);
        println!("{}: isoflop {:.4} s, objective {objective:.12e}", task.name, best);
        let Some(peer) = peer else {
            csv.push_str(&format!("\"{}\",isoflop,{best},false,{objective:e},\n", task.name));
            continue;
        };
        let seconds = peer.seconds * task.peer_times;
        let extrapolated = task.peer_times != 1.0;
        println!(
            "{}: scipy {seconds:.2} s{}, objective {:.12e}: {:.0} times ours",
            task.name,
            if extrapolated {
                format!(", extrapolated from {} warm starts", peer.count)
            } else {
                String::new()
            },
            peer.objective,
            seconds / best
        );
        csv.push_str(&format!(
            "\"{0}\",isoflop,{best},false,{objective:e},{1}\n\"{0}\",scipy,{seconds},{extrapolated},{2:e},1\n",
            task.name,
            best / seconds,
            peer.objective
        ));
        if task.peer[0] == "grid" {
            grid = Some(peer);
        }
    }
    if let Some(path) = value("--csv")
        && let Err(e) = std::fs::write(&path, csv)
    {
        eprintln!("{path}: {e}");
    }
}

/// The least time of some rounds, and the objective.
fn ours(runs: &[RunRecord], task: &Task) -> (f64, f64) {
    let mut best = (f64::INFINITY, f64::NAN);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let report: Option<FitReport> = fit_runs(runs, &[], &task.options).ok();
        let seconds = start.elapsed().as_secs_f64();
        if let Some(report) = report {
            best = (best.0.min(seconds), report.fits[0].objective);
        }
    }
    best
}

fn ask(python: &str, [mode, count]: [&str; 2]) -> Option<Peer> {
    let said = Command::new(python).args([PEER, RUNS, mode, count]).output();
    let answer = said.map_err(|e| e.to_string()).and_then(|o| match o.status.success() {
        true => serde_json::from_slice(&o.stdout).map_err(|e| e.to_string()),
        false => Err(String::from_utf8_lossy(&o.stderr).into_owned()),
    });
    answer.map_err(|e| eprintln!("scipy: {e}")).ok()
}
