//! `isoflop plan --cluster`: its tables, its JSON, its exit codes, and what it refuses.
#![cfg(feature = "study")]

mod command;

use command::{isoflop, refusal, stdout};
use std::path::Path;

const SWEEP: &str = "sweeps/examples/gopher.toml";
const CLUSTER: &str = "sweeps/examples/cluster.toml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_family_in_json_and_in_tables() {
    let json = stdout(isoflop(root(), &["plan", SWEEP, "--cluster", CLUSTER, "--output", "json"]));
    let plan: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let runs = plan["runs"].as_array().expect("runs");
    assert_eq!((runs.len(), &plan["gpu"]), (6, &serde_json::json!("h100-sxm")));
    let largest = &runs[5]["chosen"];
    for key in
        ["layout", "memory", "time", "bound_seconds", "step_seconds", "mfu", "hfu", "gpu_hours", "cost"]
    {
        assert!(!largest[key].is_null(), "{key} of {largest}");
    }
    let table = stdout(isoflop(root(), &["plan", SWEEP, "--cluster", CLUSTER, "--layouts"]));
    let gpus = format!("*   {}", largest["gpus"]);
    assert!(table.contains("280B") && table.contains("layouts fit") && table.contains(&gpus), "{table}");
}

#[test]
fn a_cluster_that_is_too_small_fails_and_a_wrong_file_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(root().join(CLUSTER)).expect("the example");
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text.replace("nodes = 512", "nodes = 2")).expect("written");
    let path = path.to_str().expect("UTF-8");
    let mut command = isoflop(root(), &["plan", SWEEP, "--cluster", path]);
    let output = command.assert().code(1).get_output().stdout.clone();
    let table = String::from_utf8(output).expect("UTF-8");
    assert!(table.contains("none fits") && table.contains("warning: no layout fits `example`"), "{table}");

    std::fs::write(path, text.replace("gpus_per_node = 8", "gpus_per_node = 0")).expect("written");
    let message = refusal(isoflop(root(), &["plan", SWEEP, "--cluster", path]));
    assert!(message.contains("c.toml:6") && message.contains("`gpus_per_node` is 0"), "{message}");
    let message = refusal(isoflop(root(), &["plan", SWEEP, "--cluster", "none.toml"]));
    assert!(message.contains("none.toml"), "{message}");
}

#[test]
fn measured_steps_calibrate_the_file_of_a_cluster() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (cluster, steps) = (path("c.toml"), path("steps.csv"));
    let text = std::fs::read_to_string(root().join(CLUSTER)).expect("the example");
    std::fs::write(&cluster, &text).expect("written");
    let plan = |cluster: &str| -> serde_json::Value {
        let json = stdout(isoflop(root(), &["plan", SWEEP, "--cluster", cluster, "--output", "json"]));
        serde_json::from_str(&json).expect("JSON")
    };
    let planned = plan(&cluster);
    let calibrate = |rows: &str| {
        std::fs::write(&steps, format!("run,layout,step_seconds\n{rows}")).expect("written");
        isoflop(root(), &["calibrate", "--cluster", &cluster, "--sweep", SWEEP, "--measured", &steps])
    };
    // A machine on which every step takes 1.2 times, and for one size 1.26 times, what is expected.
    let mut rows = String::new();
    for (run, factor) in planned["runs"].as_array().expect("runs").iter().zip([1.2, 1.2, 1.26, 1.2, 1.2, 1.2])
    {
        let chosen = &run["chosen"];
        let (size, seconds) =
            (run["size"].as_str().expect("a size"), chosen["step_seconds"].as_f64().expect("s"));
        let l = &chosen["layout"];
        let shard = if l["sequence_parallel"] == true { "+sp" } else { "" };
        for noise in [0.99, 1.0, 1.01] {
            rows.push_str(&format!(
                "{size},dp{} tp{}{shard} pp{} zero{} mb{}x{},{}\n",
                l["data"],
                l["tensor"],
                l["pipeline"],
                l["zero"],
                l["micro_batch"],
                l["accumulation"],
                seconds * factor * noise
            ));
        }
    }
    let said = stdout(calibrate(&rows));
    assert!(said.contains("factor 1.200 from 18 steps; 4.8 %"), "{said}");
    let calibrated = plan(&cluster);
    assert_eq!(calibrated["calibration"]["steps"], 18);
    // 7.1B: the layout of the largest run changes, for it would no longer end in time.
    let days = |plan: &serde_json::Value| plan["runs"][4]["chosen"]["days"].as_f64().expect("days");
    let ratio = days(&calibrated) / days(&planned);
    assert!((ratio - 1.2).abs() < 1e-6, "{ratio}");
    // Again, from the same steps: the expected time is not the calibrated one.
    let before = std::fs::read_to_string(&cluster).expect("read");
    stdout(calibrate(&rows));
    assert_eq!(std::fs::read_to_string(&cluster).expect("read"), before);
    assert!(text.lines().all(|line| before.contains(line)), "comments and keys stay: {before}");

    for (row, words) in [
        ("9B,dp1 tp1 pp1 zero0 mb32x4,1\n", ["steps.csv:2", "`run` is `9B`", "44M"]),
        ("44M,dp1 tp1 mb32x4,1\n", ["steps.csv:2", "`dp1 tp1 mb32x4`", "no pp"]),
        ("44M,dp1 tp1 pp1 zero0 mb32x3,1\n", ["steps.csv:2", "96 sequences", "on 128"]),
        ("44M,dp1 tp1 pp1 zero0 mb32x4,-1\n", ["steps.csv:2", "`step_seconds` is -1", "above 0"]),
        ("", ["steps.csv", "no rows", "step_seconds"]),
    ] {
        let message = refusal(calibrate(row));
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
        assert_eq!(std::fs::read_to_string(&cluster).expect("read"), before);
    }
}
