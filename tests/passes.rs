//! The options around passes, as `isoflop opt` and `isoflop compile` take them.
#![cfg(feature = "study")]

use assert_cmd::Command;
use std::path::Path;

const MODEL: &str =
    "n_layers = 1\nn_heads = 2\nd_head = 4\nd_model = 8\nd_ff = 16\nvocab_size = 16\nseq_len = 8\n";

/// A folder with a model file.
fn lab() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("model.toml"), MODEL).expect("written");
    dir
}

/// Standard output and standard error of a command that succeeds.
#[track_caller]
fn isoflop(dir: &Path, args: &str) -> (String, String) {
    let output = Command::cargo_bin("isoflop")
        .expect("the binary")
        .args(args.split_whitespace())
        .current_dir(dir)
        .env("ISOFLOP_CACHE", dir.join("cache"))
        .output()
        .expect("started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "isoflop {args}: {err}");
    (out, err)
}

#[track_caller]
fn refused(dir: &Path, args: &str) -> String {
    let output = Command::cargo_bin("isoflop")
        .expect("the binary")
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("started");
    assert!(!output.status.success(), "isoflop {args} succeeded");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    message.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ")
}

#[test]
fn a_compilation_stopped_and_resumed_is_the_compilation() {
    let dir = lab();
    let fused = isoflop(dir.path(), "compile model.toml --emit fused").0;
    for (stop, resume) in [("fold", "cse"), ("recompute", "dce:2"), ("legalize", "fuse")] {
        let (text, notes) = isoflop(dir.path(), &format!("compile model.toml --stop-after {stop}"));
        assert_eq!(notes, "");
        std::fs::write(dir.path().join("dump.graph"), text).expect("written");
        assert_eq!(isoflop(dir.path(), &format!("opt dump.graph --resume-from {resume}")).0, fused);
    }
    // A dump on standard error is such a file, too.
    let (_, dump) = isoflop(dir.path(), "compile model.toml --emit plan --print-after fold");
    let step = dump.split("// fold").nth(1).expect("the dump of the step");
    std::fs::write(dir.path().join("dump.graph"), format!("// fold{step}")).expect("written");
    assert_eq!(isoflop(dir.path(), "opt dump.graph --resume-from cse").0, fused);
}

#[test]
fn dumps_and_times_go_to_standard_error() {
    let dir = lab();
    let (plan, notes) = isoflop(dir.path(), "compile model.toml --emit plan --print-after-all --time-passes");
    assert_eq!(plan, isoflop(dir.path(), "compile model.toml --emit plan").0);
    assert!(notes.contains("// recompute: ") && notes.contains("graph @train("), "{notes}");
    assert!(notes.contains("│ match-attention ") && notes.contains(" us in passes"), "{notes}");
    let (made, notes) = isoflop(dir.path(), "compile model.toml --stats");
    assert!(made.contains("batch 8: artifacts/"), "{made}");
    assert!(notes.starts_with("// graph @train\n// match-attention: "), "{notes}");
    let (_, times) = isoflop(dir.path(), "compile model.toml --emit fused --time-passes --output json");
    let times: serde_json::Value = serde_json::from_str(&times).expect("JSON");
    let graphs: Vec<&str> =
        times.as_array().expect("a list").iter().filter_map(|t| t["graph"].as_str()).collect();
    assert_eq!(graphs, ["train", "eval"]);
    let passes = times[0]["passes"].as_array().expect("a list");
    let shares: f64 = passes.iter().filter_map(|p| p["share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{times}");
    let fuse = passes.last().expect("a pass");
    assert_eq!(fuse["pass"], "fuse");
    assert_eq!(fuse["changes"]["fused"][0], 0);
    assert!(fuse["nodes_before"].as_u64() > fuse["nodes_after"].as_u64(), "{times}");
}

#[test]
fn a_pass_left_out_changes_the_program() {
    let dir = lab();
    let plan = |flags: &str| isoflop(dir.path(), &format!("compile model.toml --emit plan {flags}")).0;
    let with = plan("");
    let without = plan("--disable-pass match-attention");
    assert!(with.contains("attention forward") && !without.contains("attention forward"));
    let artifact = |flags: &str| isoflop(dir.path(), &format!("compile model.toml {flags}")).0;
    let name = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    assert_ne!(name(&artifact("")), name(&artifact("--disable-pass recompute")));
    let message = refused(dir.path(), "compile model.toml --emit plan --disable-pass fuse");
    assert!(message.contains("elementwise operations become kernels in `fuse` or `outline`"), "{message}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = lab();
    let message = refused(dir.path(), "compile model.toml --emit plan --print-after folf");
    assert!(
        message.contains("`folf` is not among the passes of this pipeline: match-attention,"),
        "{message}"
    );
    assert!(message.contains("did you mean `fold`?"), "{message}");
    let message = refused(dir.path(), "compile model.toml --emit plan --stop-after fold");
    assert!(message.contains("--stop-after prints the graph after that pass"), "{message}");
}

#[test]
fn the_registry_is_a_table_and_data() {
    let dir = lab();
    let (table, _) = isoflop(dir.path(), "opt --list");
    let (json, _) = isoflop(dir.path(), "opt --list --output json");
    let list: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    let names: Vec<&str> = list.iter().filter_map(|p| p["name"].as_str()).collect();
    let registry: Vec<&str> = isoflop_compiler::passes::all().iter().map(|p| p.name).collect();
    assert_eq!(names, registry);
    for name in names {
        assert!(table.contains(&format!("│ {name} ")), "{table}");
    }
    let dce = list.iter().find(|p| p["name"] == "dce").expect("dce");
    assert_eq!(dce["places_in_default"].as_array().map(Vec::len), Some(2));
}
