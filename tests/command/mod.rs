//! What the tests of commands share that need no study: the program run in a folder, and what it said.

use assert_cmd::Command;
use std::path::Path;

pub fn isoflop(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("isoflop").expect("the binary is built");
    command.args(args).current_dir(dir);
    command
}

/// Standard output of a command that succeeds.
#[track_caller]
pub fn stdout(mut command: Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("UTF-8")
}

/// Standard error, in one line, of a command that fails without a panic.
#[track_caller]
pub fn refusal(mut command: Command) -> String {
    let output = command.assert().failure().get_output().stderr.clone();
    let text = String::from_utf8(output).expect("UTF-8");
    assert!(!text.contains("panicked"), "{text}");
    // Messages wrap at the terminal's width, with a rule at the left.
    text.replace(['│', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}
