//! `isoflop kernels`: dumps of generated kernels, and what differs between two.
#![cfg(feature = "study")]

use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;

const MODEL: &str =
    "n_layers = 2\nn_heads = 2\nd_head = 4\nd_model = 8\nd_ff = 16\nvocab_size = 16\nseq_len = 8\n";

/// A folder with a model file.
fn lab() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("model.toml"), MODEL).expect("written");
    dir
}

/// Exit code, standard output and standard error, the last without line breaks.
fn isoflop(dir: &Path, args: &str) -> (i32, String, String) {
    isoflop_with(dir, &args.split_whitespace().collect::<Vec<_>>())
}

fn isoflop_with(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("isoflop")
        .expect("the binary")
        .args(args)
        .current_dir(dir)
        .env("ISOFLOP_CACHE", dir.join("cache"))
        .output()
        .expect("started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr).split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
    (output.status.code().expect("an exit code"), text(&output.stdout), errors)
}

/// Writes a dump.
#[track_caller]
fn dump(dir: &Path, args: &str, out: &str) -> Value {
    let (code, printed, errors) = isoflop(dir, &format!("kernels dump {args} --out {out}"));
    assert_eq!((code, printed.as_str()), (0, ""), "{errors}");
    let text = std::fs::read_to_string(dir.join(out)).expect("a dump");
    serde_json::from_str(&text).expect("JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn a_dump_holds_every_kernel_once_and_what_runs_it() {
    let dir = lab();
    let found = dump(dir.path(), "model.toml", "a.json");
    assert_eq!(found["format"], 1);
    let programs = list(&found["programs"]);
    let names: Vec<&str> = programs.iter().filter_map(|p| p["program"].as_str()).collect();
    assert_eq!((names, &programs[0]["model"]), (vec!["train", "eval"], &Value::from("model")));
    let kernels = list(&found["kernels"]);
    let mut ids: Vec<&str> = kernels.iter().filter_map(|k| k["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), kernels.len());
    // What the uses say adds up to what the totals say.
    for program in programs {
        let times: u64 = list(&program["kernels"]).iter().filter_map(|u| u["times"].as_u64()).sum();
        let totals = &program["totals"];
        assert_eq!(totals["kernels"], list(&program["kernels"]).len());
        let kinds = ["rows_kernels", "flat_kernels", "moves", "finishes"];
        assert_eq!(times, kinds.iter().filter_map(|k| totals[k].as_u64()).sum::<u64>(), "{totals}");
        let calls: u64 = list(&program["calls"]).iter().filter_map(|u| u["times"].as_u64()).sum();
        let grouped = totals["grouped_launches"].as_u64().expect("a count");
        assert!(calls + grouped < totals["launches"].as_u64().expect("a count"), "{totals}");
    }
    // AdamW of f32: parameter, two moments and gradient are read; all but the gradient are written.
    let adamw = list(&programs[0]["kernels"]).last().expect("the last kernel");
    let bytes = |way: &str| adamw[way].as_u64().expect("bytes");
    assert_eq!(adamw["labels"][0], "adamw");
    assert!(bytes("bytes_read") > bytes("bytes_written") && bytes("bytes_written") % 3 == 0, "{adamw}");
    // The same again, to standard output.
    let (_, printed, _) = isoflop(dir.path(), "kernels dump model.toml");
    assert_eq!(printed, std::fs::read_to_string(dir.path().join("a.json")).expect("a dump"));
}

#[test]
fn sizes_of_the_families_need_no_file() {
    let dir = lab();
    let found = dump(dir.path(), "--size 21k,280B", "a.json");
    let models: Vec<(&str, u64)> = list(&found["programs"])
        .iter()
        .map(|p| (p["model"].as_str().expect("a name"), p["batch"].as_u64().expect("a batch")))
        .collect();
    assert_eq!(models, [("gopher-280B", 1536), ("gopher-280B", 1536), ("nano-21k", 8), ("nano-21k", 8)]);
    let (code, _, errors) = isoflop(dir.path(), "kernels dump --size 281B");
    assert_eq!(code, 1);
    assert!(errors.contains("there is no size `281B`; did you mean `280B`?"), "{errors}");
}

#[test]
fn equal_dumps_say_so_in_one_line() {
    let dir = lab();
    dump(dir.path(), "model.toml", "a.json");
    let (code, printed, _) = isoflop(dir.path(), "kernels diff a.json a.json --exit-code");
    assert_eq!(code, 0);
    assert!(printed.starts_with("no difference: ") && printed.lines().count() == 1, "{printed}");
}

#[test]
fn a_pass_left_out_shows_as_kernels_totals_and_calls() {
    let dir = lab();
    dump(dir.path(), "model.toml", "with.json");
    dump(dir.path(), "model.toml --disable-pass recompute", "without.json");
    let (code, printed, _) = isoflop(dir.path(), "kernels diff with.json without.json --exit-code");
    assert_eq!(code, 1, "{printed}");
    assert!(printed.starts_with("kernels: ") && printed.contains("1 of 2 programs differ"), "{printed}");
    assert!(printed.contains("made with another disabled passes: none -> recompute"), "{printed}");
    assert!(printed.contains("changed: layers.*.gelu\n") && printed.contains("\n+return %tanh0 : f32\n"));
    assert!(printed.contains("│ model batch 8 train ") && printed.contains(" %)"), "{printed}");
    assert!(!printed.contains('\x1b'), "colour without a terminal");
    // Without --exit-code a difference is no failure.
    assert_eq!(isoflop(dir.path(), "kernels diff with.json without.json").0, 0);
    dump(dir.path(), "model.toml --disable-pass match-attention", "without.json");
    let (_, printed, _) = isoflop(dir.path(), "kernels diff with.json without.json");
    let library = printed.split("library calls\n").nth(1).expect("library calls");
    assert!(library.contains("- attention forward: 8 sequences of 8, 2 heads of 4 at layers.*.attention"));
    assert!(printed.contains("\nadded: layers.*.attention"), "{printed}");
}

#[test]
fn a_difference_is_data_too() {
    let dir = lab();
    dump(dir.path(), "model.toml", "with.json");
    dump(dir.path(), "model.toml --disable-pass recompute", "without.json");
    let (_, printed, _) = isoflop(dir.path(), "kernels diff with.json without.json --output json");
    let found: Value = serde_json::from_str(&printed).expect("JSON");
    let [program] = list(&found["programs"]) else { panic!("one program differs: {printed}") };
    let arena = list(&program["totals"]).iter().find(|t| t[0] == "arena_bytes").expect("the arena");
    assert!(arena[1][0].as_u64() < arena[1][1].as_u64(), "{arena}");
    let changed = list(&found["kernels"]).iter().filter(|k| k["change"] == "changed");
    let labels: Vec<&str> = changed.filter_map(|k| k["after"]["labels"][0].as_str()).collect();
    assert!(labels.contains(&"layers.*.gelu") && labels.contains(&"layers.*.gelu/grad"), "{labels:?}");
}

#[test]
fn machine_code_is_counted_and_compared() {
    let dir = lab();
    let found = dump(dir.path(), "model.toml --code --target x86-64-v3", "v3.json");
    dump(dir.path(), "model.toml --code --target x86-64", "v1.json");
    for kernel in list(&found["kernels"]) {
        let count = |what: &str| kernel["code"][what].as_u64().expect("a count");
        assert!(count("instructions") >= count("vector") + count("scalar"), "{kernel}");
        assert!(count("bytes") >= count("instructions"), "{kernel}");
    }
    let (code, printed, _) = isoflop(dir.path(), "kernels diff v1.json v3.json --exit-code");
    assert_eq!(code, 1);
    assert!(printed.contains("with other machine code") && printed.contains("vector"), "{printed}");
    // A dump without machine code is compared by its texts.
    dump(dir.path(), "model.toml", "none.json");
    assert_eq!(isoflop(dir.path(), "kernels diff none.json v3.json --exit-code").0, 0);
}

#[test]
fn what_cannot_be_compared_is_named() {
    let dir = lab();
    dump(dir.path(), "model.toml", "a.json");
    let text = std::fs::read_to_string(dir.path().join("a.json")).expect("a dump");
    std::fs::write(dir.path().join("new.json"), text.replacen("\"format\": 1", "\"format\": 9", 1))
        .expect("written");
    for (args, wanted) in [
        ("a.json gone.json", "cannot read gone.json: No such file"),
        ("a.json new.json", "new.json is a dump of format 9; this isoflop reads format 1."),
        ("a.json model.toml", "model.toml is no dump of `isoflop kernels dump`"),
        ("a.json", "1 dumps are given; it takes two, before and after, or --rev"),
    ] {
        let (code, _, errors) = isoflop(dir.path(), &format!("kernels diff {args}"));
        assert!(code == 1 && errors.contains(wanted), "{args}: {code} {errors}");
        assert_eq!(isoflop(dir.path(), &format!("kernels diff {args} --exit-code")).0, 2);
    }
    let (code, _, errors) = isoflop(dir.path(), "kernels dump model.toml --stop-after fold");
    assert!(code == 1 && errors.contains("there are no kernels where --stop-after stops"), "{errors}");
}

fn git(dir: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"];
    let output =
        std::process::Command::new("git").args(who).args(args).current_dir(dir).output().expect("git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A repository whose revisions build this very isoflop behind a script: `old` has no dumps yet, `plain` compiles as it
/// is, `without` leaves a pass out. What builds them installs the script.
fn repository(dir: &Path) -> &'static str {
    let isoflop = assert_cmd::cargo::cargo_bin!("isoflop").display().to_string();
    let script = |flags: &str| {
        let text = format!("#!/bin/sh\nshift 2\nexec {isoflop} kernels dump {flags} \"$@\"\n");
        std::fs::write(dir.join("isoflop.sh"), text).expect("written");
    };
    let commit = |tag: &str| {
        git(dir, &["add", "--all"]);
        git(dir, &["commit", "--quiet", "--message", tag]);
        git(dir, &["tag", tag]);
    };
    git(dir, &["init", "--quiet"]);
    std::fs::write(dir.join(".gitignore"), "cache\n").expect("written");
    script("");
    commit("old");
    std::fs::create_dir_all(dir.join("src/verbs/kernels")).expect("a folder");
    std::fs::write(dir.join("src/verbs/kernels/dump.rs"), "").expect("written");
    commit("plain");
    script("--disable-pass recompute");
    commit("without");
    "install -D isoflop.sh $CARGO_TARGET_DIR/release/isoflop"
}

#[test]
fn revisions_are_built_once_and_compared() {
    let dir = lab();
    let build = repository(dir.path());
    let diff = |revisions: &[&str]| {
        let mut args = vec!["kernels", "diff", "model.toml", "--exit-code", "--build", build];
        args.extend(revisions.iter().flat_map(|r| ["--rev", r]));
        isoflop_with(dir.path(), &args)
    };
    let (code, printed, notes) = diff(&["plain", "without"]);
    assert_eq!(code, 1, "{notes}");
    assert!(
        printed.contains("changed: layers.*.gelu\n") && printed.contains("1 of 2 programs differ"),
        "{printed}"
    );
    assert_eq!(notes.matches("building isoflop of ").count(), 2, "{notes}");
    // Built once, and nothing stays behind in the repository.
    let (code, again, notes) = diff(&["plain", "HEAD"]);
    assert_eq!((code, again == printed, notes.as_str()), (1, true, ""));
    assert_eq!(git(dir.path(), &["worktree", "list"]).lines().count(), 1);
    assert_eq!(git(dir.path(), &["status", "--porcelain"]), "");
    // One revision is compared with this isoflop.
    let (code, printed, _) = diff(&["plain"]);
    assert!(code == 0 && printed.starts_with("no difference: "), "{printed}");
    let (code, printed, _) = diff(&["without"]);
    assert!(code == 1 && printed.contains("\n-return %tanh0 : f32\n"), "{printed}");
}

#[test]
fn revisions_that_cannot_be_compared_are_named() {
    let dir = lab();
    repository(dir.path());
    let refused = |args: &[&str], wanted: &str| {
        let all: Vec<&str> = ["kernels", "diff", "model.toml"].iter().chain(args).copied().collect();
        let (code, _, errors) = isoflop_with(dir.path(), &all);
        assert!(code == 1 && errors.contains(wanted), "{args:?}: {code} {errors}");
    };
    refused(&["--rev", "nowhere"], "has no revision `nowhere`");
    refused(&["--rev=--help-me"], "has no revision `--help-me`");
    refused(
        &["--rev", "old"],
        "has no `isoflop kernels dump` (src/verbs/kernels/dump.rs): it is older than that",
    );
    let fails = "for n in 1 2 3; do echo line $n; done; exit 3";
    refused(&["--rev", "plain", "--build", fails], "its last lines: line 1 line 2 line 3");
    refused(&["--rev", "plain", "--build", fails], "(exit status: 3)");
    refused(&["--rev", "plain", "--build", "true"], "`true` left no ");
    refused(&["--rev", "a", "--rev", "b", "--rev", "c"], "--rev is given 3 times");
    refused(&["--size", "21k"], "what is compiled is for `isoflop kernels dump` or --rev to say");
    let binary = "install -D /bin/false $CARGO_TARGET_DIR/release/isoflop";
    refused(&["--rev", "plain", "--build", binary], "makes no dump (exit status: 1)");
    assert_eq!(git(dir.path(), &["worktree", "list"]).lines().count(), 1);
    let alone = lab();
    let (code, _, errors) = isoflop(alone.path(), "kernels diff --rev HEAD model.toml");
    assert!(code == 1 && errors.contains("--rev needs a git repository of isoflop"), "{errors}");
}
