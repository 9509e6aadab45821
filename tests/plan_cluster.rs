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
