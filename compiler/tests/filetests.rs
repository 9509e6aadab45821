//! The files of tests/filetests, without machine code (tests/filetests.rs at the root runs that), and what must occur in
//! them.
//!
//! `FILETEST=TEXT` chooses cases in whose path, line or action the text occurs; `BLESS=1` writes what was found.

use isoflop_compiler::filetest::{Case, Harness, cases, check, graph_files};
use isoflop_compiler::fuse::decision::Reason;
use isoflop_compiler::passes::{Registry, all};
use isoflop_compiler::text::MNEMONICS;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests")
}

#[test]
fn filetests() {
    let (registry, filter) = (Registry::default(), std::env::var("FILETEST").ok());
    let bless = std::env::var_os("BLESS").is_some_and(|v| v == "1");
    let harness = Harness { registry: &registry, execute: None, filter: filter.as_deref(), bless };
    let report = check(&[root()], &harness).unwrap_or_else(|e| panic!("{e}"));
    let failures: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    assert!(failures.is_empty(), "{}\nBLESS=1 accepts what was found", failures.join("\n\n"));
    assert!(report.actions() + report.not_run > 0, "no case is called {filter:?}");
    println!("{} actions, {} that need machine code not run", report.actions(), report.not_run);
}

/// Every case that has an action beginning with this word.
fn with(action: &str) -> Vec<Case> {
    let files = graph_files(&[root()]).unwrap_or_else(|e| panic!("{e}"));
    let read = |f: &PathBuf| std::fs::read_to_string(f).unwrap_or_else(|e| panic!("{}: {e}", f.display()));
    let all = files.iter().flat_map(|f| cases(&read(f)).cases);
    all.filter(|c| c.actions.iter().any(|a| a.starts_with(action))).collect()
}

#[test]
fn every_pass_reason_and_operation_occurs() {
    let every = with("");
    for pass in all() {
        let occurs =
            every.iter().any(|c| c.actions.iter().any(|a| a.split([',', ' ']).any(|w| w == pass.name)));
        assert!(occurs, "no filetest runs `{}`", pass.name);
    }
    let explained = with("explain");
    for reason in Reason::ALL {
        let name = serde_json::to_value(reason).expect("a name");
        let end = format!(": {}", name.as_str().expect("a word"));
        assert!(
            explained.iter().any(|c| c.checks.iter().any(|l| l.ends_with(&end))),
            "no filetest gives{end}"
        );
    }
    let writes = |cases: &[Case], op: &str| {
        let line = format!(" = {op}");
        let is = |l: &String| {
            l.split_once(&line)
                .is_some_and(|(_, rest)| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        cases.iter().any(|c| c.source.iter().any(is))
    };
    let (interpreted, run) = (with("interpret"), with("run cpu"));
    // One process is no group, and regions are formed on the way.
    let not_run = ["all_reduce", "all_gather", "reduce_scatter", "fused"];
    for op in MNEMONICS {
        assert!(writes(&interpreted, op), "no filetest interprets `{op}`");
        assert!(not_run.contains(&op) || writes(&run, op), "no filetest runs `{op}` as machine code");
    }
}

#[test]
fn the_files_are_as_many_as_they_were() {
    let files = graph_files(&[root()]).unwrap_or_else(|e| panic!("{e}"));
    assert!(files.len() >= 150, "{} files", files.len());
}
