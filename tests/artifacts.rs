//! The same model compiled by different processes is the same artifact, file by file.
#![cfg(feature = "study")]

use assert_cmd::Command;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MODEL: &str =
    "n_layers = 2\nn_heads = 2\nd_head = 8\nd_model = 16\nd_ff = 32\nvocab_size = 64\nseq_len = 16\n";

/// The folder that `isoflop compile` names as it writes an artifact under `out`, with nothing there yet.
fn compiled(model: &Path, out: &Path) -> PathBuf {
    let mut command = Command::cargo_bin("isoflop").expect("the binary");
    // A cache of its own, so that every kernel is compiled again.
    command.env("ISOFLOP_CACHE", out.join("cache"));
    command.arg("compile").arg(model).arg("--batch").arg("2").arg("--out").arg(out.join("artifacts"));
    let output = command.output().expect("a run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let folder = said.split(": ").nth(1).and_then(|s| s.split(" (").next()).expect("a folder").to_string();
    let (kernels, now) = said.rsplit_once(" kernels, ").expect("a count of kernels");
    let total = kernels.rsplit_once('(').expect("a count").1;
    assert_eq!(now.trim_end(), format!("{total} compiled now)"), "{said}");
    PathBuf::from(folder)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("an artifact") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        out.insert(name, std::fs::read(&path).expect("a file"));
    }
    out
}

#[test]
fn two_processes_make_the_same_artifact() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = dir.path().join("model.toml");
    std::fs::write(&model, MODEL).expect("written");
    let [first, second] = ["a", "b"].map(|name| {
        let out = dir.path().join(name);
        std::fs::create_dir(&out).expect("a folder");
        compiled(&model, &out)
    });
    // The folder's name is the hash of what is in it.
    assert_eq!(first.file_name(), second.file_name());
    let (first, second) = (files(&first), files(&second));
    assert!(first.contains_key("programs.json") && first.contains_key("kernels.so"), "{:?}", first.keys());
    for (name, bytes) in &first {
        assert!(second.get(name) == Some(bytes), "{name} differs");
    }
    assert_eq!(first.len(), second.len());
}
