//! Facts about the shape of the code: which crate may use which, what is named where, and how files look.

use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of all crates that each crate of this workspace needs to be built, itself included; tests' own left out.
fn crates(features: &[&str]) -> HashMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // Only crates of this platform are sure to be here without a network.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .args(features)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |v: &Value| v.as_array().expect("a list").clone();
    let text = |v: &Value| v.as_str().expect("a string").to_owned();
    let names: HashMap<String, String> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let needs: HashMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let for_build = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"] != "dev");
            let deps = list(&node["deps"]);
            (text(&node["id"]), deps.iter().filter(for_build).map(|d| text(&d["pkg"])).collect())
        })
        .collect();
    list(&metadata["workspace_members"])
        .iter()
        .map(|member| {
            let mut seen = BTreeSet::new();
            let mut open = vec![text(member)];
            while let Some(id) = open.pop() {
                if seen.insert(id.clone()) {
                    open.extend(needs[&id].iter().cloned());
                }
            }
            (names[&text(member)].clone(), seen.iter().map(|id| names[id].clone()).collect())
        })
        .collect()
}

#[test]
fn arrows_between_crates_run_one_way() {
    let crates = crates(&[]);
    let ours = |name: &str| -> Vec<&str> {
        let all = crates[name].iter().map(String::as_str);
        all.filter(|n| n.starts_with("isoflop-") && *n != name).collect()
    };
    assert_eq!(ours("isoflop-kernels"), Vec::<&str>::new());
    assert_eq!(ours("isoflop-compiler"), ["isoflop-kernels"]);
    assert_eq!(ours("isoflop-runtime"), ["isoflop-kernels"]);
    assert_eq!(ours("isoflop-sweeps"), ["isoflop-compiler", "isoflop-kernels", "isoflop-runtime"]);
    for name in ["isoflop-kernels", "isoflop-runtime"] {
        assert!(!crates[name].contains("mlir-sys"), "{name} links MLIR");
    }
}

#[test]
fn the_worker_links_no_compiler() {
    let worker = &crates(&["--no-default-features"])["isoflop"];
    for name in ["mlir-sys", "isoflop-compiler", "isoflop-sweeps"] {
        assert!(!worker.contains(name), "the worker needs {name}");
    }
    assert!(worker.contains("isoflop-runtime"));
    // Features are those of all crates together in cargo's metadata, and of one build in its tree.
    let kernels = |features: &[&str]| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let arguments = ["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}"];
        let output = Command::new(cargo).args(arguments).args(features).current_dir(root()).output();
        let tree = String::from_utf8(output.expect("cargo").stdout).expect("UTF-8");
        let line =
            tree.lines().find(|l| l.starts_with("isoflop-kernels ")).expect("the crate of the kernels");
        line.to_owned()
    };
    assert!(kernels(&[]).contains("nvrtc"));
    assert!(!kernels(&["--no-default-features", "--edges", "normal,build"]).contains("nvrtc"));
}

/// Every Rust source of the workspace, by path from its root.
fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["benches", "compiler", "fuzz", "kernels", "runtime", "src", "sweeps", "tests"];
    let mut open: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).filter(|f| f.is_dir()).collect();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let short = path.strip_prefix(root()).expect("below the root").to_path_buf();
                found.push((short, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "only {} sources found", found.len());
    found
}

#[test]
fn mlir_is_named_in_one_module() {
    let ours = |path: &Path| !path.starts_with("tests");
    let named = |(path, text): (PathBuf, String)| {
        (ours(&path) && text.contains(concat!("mlir", "_sys"))).then_some(path)
    };
    let named: Vec<PathBuf> = sources().into_iter().filter_map(named).collect();
    assert!(!named.is_empty());
    for path in named {
        assert!(path.starts_with("compiler/src/mlir/ffi"), "{} names the bindings", path.display());
    }
}

#[test]
fn cuda_is_named_in_two_modules() {
    for (path, text) in sources() {
        for (module, folder) in [("nvrtc", "kernels/src/cuda"), ("driver", "runtime/src/cuda")] {
            let named = text.contains(&format!("cuda{}::{module}", "rc"));
            assert!(!named || path.starts_with(folder), "{} names CUDA's {module}", path.display());
        }
    }
}

#[test]
fn the_compiler_reads_no_clock_and_no_network() {
    for (path, text) in sources() {
        if path.starts_with("compiler/src") || path.starts_with("kernels/src") {
            for forbidden in ["SystemTime", "Instant::", "std::net", "thread_rng"] {
                assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
            }
        }
    }
}

#[test]
fn only_the_process_module_starts_workers() {
    for (path, text) in sources() {
        if path.starts_with("sweeps/src") && !path.ends_with("process.rs") {
            assert!(!text.contains(".spawn()"), "{} starts a process itself", path.display());
        }
    }
}

#[test]
fn only_the_slurm_module_runs_commands_of_slurm() {
    let commands = ["sbatch", "squeue", "sacct", "sacctmgr", "scancel", "scontrol", "sinfo", "srun"];
    let quoted = |text: &str| commands.into_iter().find(|c| text.contains(&format!("\"{c}\"")));
    let mut inside = 0;
    for (path, text) in sources() {
        let found = quoted(&text);
        if path.starts_with("sweeps/src/slurm") {
            inside += usize::from(found.is_some());
        } else if !path.starts_with("tests") {
            assert_eq!(found, None, "{} names a command of Slurm", path.display());
        }
    }
    assert!(inside >= 3, "only {inside} files run commands of Slurm");
}

#[test]
fn sources_are_short_finished_and_say_what_they_are_for() {
    let unfinished = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore")];
    for (path, text) in sources() {
        let path = path.display();
        let lines = text.lines().count();
        assert!(lines <= 600, "{path} has {lines} lines; more than 600 want to be two files");
        assert!(text.starts_with("//! "), "{path} does not open with a sentence `//! ...`");
        for word in unfinished {
            assert!(!text.contains(word), "{path} contains {word}");
        }
    }
}
