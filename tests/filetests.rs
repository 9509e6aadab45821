//! Every case of tests/filetests through the command, machine code and all.
//!
//! `FILETEST=TEXT` chooses cases in whose path, line or action the text occurs; `BLESS=1` writes what was found.
#![cfg(feature = "study")]

use std::process::Command;

fn opt() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isoflop"));
    command.arg("opt").current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

#[test]
fn filetests() {
    let cache = tempfile::tempdir().expect("a directory");
    let mut command = opt();
    command.args(["--check", "tests/filetests"]).env("ISOFLOP_CACHE", cache.path());
    if let Ok(part) = std::env::var("FILETEST") {
        command.args(["--filter", &part]);
    }
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        command.arg("--bless");
    }
    let output = command.output().expect("started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\nBLESS=1 accepts what was found");
}

#[test]
fn what_differs_is_shown_and_blessed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("double.graph");
    let text = |check: &str| {
        format!(
            "// test: run cpu\n// input x = 1, 2, 3\ngraph @g(%x: f32[3]) -> (f32[3]) {{\n  \
             %1 = add %x, %x\n  return y = %1\n}}\n// CHECK: y: f32[3] = {check}\n"
        )
    };
    std::fs::write(&file, text("2.0, 4.0, 7.0")).expect("written");
    let run = |args: &[&str]| {
        let output = opt().arg("--check").arg(&file).args(args).output().expect("started");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (passed, out) = run(&[]);
    assert!(!passed, "{out}");
    let diff = "-y: f32[3] = 2.0, 4.0, 7.0\n+y: f32[3] = 2.0, 4.0, 6.0\n";
    assert!(out.contains("double.graph:1 (run cpu)\n--- expected\n+++ found\n"), "{out}");
    assert!(out.contains(diff) && out.contains("1 files, 1 actions, 1 failed"), "{out}");
    let (passed, out) = run(&["--bless"]);
    assert!(passed && out.starts_with("blessed "), "{out}");
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), text("2.0, 4.0, 6.0"));
    assert!(run(&[]).0);
    assert!(!run(&["--filter", "no such case"]).0);
}
