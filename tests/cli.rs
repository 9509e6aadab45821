//! The command line as a person meets it: help, plans, wrong input, and a small sweep run, killed and continued.

#![cfg(feature = "study")]

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A folder that is not there, so that no calibrated device of this machine's user changes a plan.
const NO_CONFIG: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-config");

fn isoflop(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("isoflop").expect("the binary is built");
    command.args(args).env("XDG_CONFIG_HOME", NO_CONFIG);
    command
}

/// Standard output of a command that succeeds.
#[track_caller]
fn stdout(mut command: Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("UTF-8")
}

/// Standard error of a command that fails without a panic.
#[track_caller]
fn refusal(args: &[&str]) -> String {
    let output = isoflop(args).assert().failure().get_output().stderr.clone();
    let text = String::from_utf8(output).expect("UTF-8");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/examples").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn every_verb_has_help_with_an_example() {
    let verbs: [&[&str]; 14] = [
        &[],
        &["plan"],
        &["calibrate"],
        &["compile"],
        &["opt"],
        &["run"],
        &["train"],
        &["status"],
        &["fit"],
        &["allocate"],
        &["simulate"],
        &["report"],
        &["data", "prepare"],
        &["completions"],
    ];
    for verb in verbs {
        let args: Vec<&str> = verb.iter().copied().chain(["--help"]).collect();
        let help = stdout(isoflop(&args));
        let example = format!("isoflop {}", verb.join(" "));
        assert!(help.contains("Example") && help.contains(example.trim_end()), "{verb:?}: {help}");
    }
}

#[test]
fn a_plan_in_json_has_every_figure() {
    for name in ["gopher.toml", "nano.toml"] {
        let text = stdout(isoflop(&["plan", &example(name), "--output", "json"]));
        let plan: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let runs = plan["runs"].as_array().expect("runs");
        for run in runs {
            for key in [
                "params",
                "params_non_embedding",
                "tokens",
                "flops",
                "steps",
                "memory_bytes",
                "seconds",
                "batch_tokens",
            ] {
                assert!(run[key].as_f64().is_some_and(|v| v > 0.0), "{name}: {key} of {run}");
            }
            assert_eq!(run["flops_convention"], "6nd");
            // A process of ours has the memory of a CPU only.
            if name == "nano.toml" {
                assert!(run["peak_rss_bytes"].as_u64() > run["memory_bytes"].as_u64(), "{run}");
                assert!(run["peak_rss_bytes_per_further_thread"].as_u64() > Some(10_000), "{run}");
            } else {
                assert!(run["peak_rss_bytes"].is_null(), "{run}");
            }
            // Parameters and two moments in f32, and room to compute.
            assert!(run["memory_bytes"].as_u64() > run["params"].as_u64().map(|p| p * 12), "{run}");
        }
        if name == "gopher.toml" {
            let params: Vec<_> = runs.iter().map(|r| r["params"].as_u64()).collect();
            assert_eq!((params.len(), params[0]), (6, Some(43_663_872)));
            assert_eq!(runs[0]["size"], "44M");
        }
    }
}

#[test]
fn a_calibrated_device_is_found_and_kept_in_the_plan() {
    let dir = tempfile::tempdir().expect("a directory");
    let with = |args: &[&str]| {
        let mut command = isoflop(args);
        command.env("XDG_CONFIG_HOME", dir.path());
        stdout(command)
    };
    let text = with(&["calibrate", "--output", "json"]);
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let device = &found["calibration"]["device"];
    assert!(device["peak_flops"]["f32"].as_f64().is_some_and(|p| p > 1e8), "{text}");
    let measured = found["calibration"]["measurements"].as_array().expect("a list");
    assert!(measured.iter().any(|m| m["what"].as_str().is_some_and(|w| w.contains("memory"))), "{text}");
    let file = dir.path().join("isoflop/cpu.toml");
    assert_eq!(found["file"].as_str(), file.to_str());

    let table = with(&["plan", &example("nano.toml")]);
    assert!(table.contains(&format!("calibrated in {}", file.display())), "{table}");
    let plan: serde_json::Value =
        serde_json::from_str(&with(&["plan", &example("nano.toml"), "--output", "json"])).expect("JSON");
    assert_eq!(&plan["device_description"], device);
    let elsewhere = dir.path().join("mine.toml");
    std::fs::copy(&file, &elsewhere).expect("copied");
    let table =
        stdout(isoflop(&["plan", &example("nano.toml"), "--device", elsewhere.to_str().expect("UTF-8")]));
    assert!(table.contains("mine.toml"), "{table}");
    let message = refusal(&["calibrate", "--out", "cpu.txt"]);
    assert!(message.contains("ends in .toml"), "{message}");
}

#[test]
fn wrong_input_names_place_key_and_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let nano = std::fs::read_to_string(example("nano.toml")).expect("the example");
    let typo = write("typo.toml", &nano.replace("warmup = 0.05", "warmpu = 0.05"));
    let message = refusal(&["plan", &typo]);
    let line = nano.lines().position(|l| l.starts_with("schedule")).expect("a schedule") + 1;
    assert!(
        message.contains(&format!("typo.toml:{line}:14")) && message.contains("did you mean `warmup`"),
        "{message}"
    );
    let message = refusal(&["plan", &example("nano.toml"), "--device", "h100"]);
    assert!(message.contains("h100-sxm"), "{message}");
    let message = refusal(&["plan", "no/such/file.toml"]);
    assert!(message.contains("no/such/file.toml"), "{message}");
    let message = refusal(&["compile", &example("gopher.toml"), "--size", "45M", "--emit", "plan"]);
    assert!(message.contains("did you mean `44M`"), "{message}");
    let model = write("model.toml", "n_layers = 2\nn_heads = 2\nd_hed = 8\n");
    let message = refusal(&["compile", &model, "--emit", "graph"]);
    assert!(message.contains("model.toml:3:1") && message.contains("did you mean `d_head`"), "{message}");
    let out = dir.path().join("study");
    let no_data = write("no_data.toml", &nano.replace("corpus/gcide", "no/corpus"));
    let message = refusal(&["run", &no_data, "--out", out.to_str().expect("UTF-8")]);
    assert!(message.contains("isoflop data prepare") && !out.exists(), "{message}");
    let lab = Lab::new();
    let sweep = std::fs::read_to_string(lab.path("sweep.toml")).expect("the sweep");
    let other = sweep.replace("train = \"corpus\"", "train = \"corpus\"\ntokenizer = \"words.json\"");
    std::fs::write(lab.path("sweep.toml"), other).expect("written");
    let message = String::from_utf8(lab.run("tokens", "1").stderr).expect("UTF-8");
    assert!(message.contains("`bytes`") && message.contains("--tokenizer words.json"), "{message}");
    let here = dir.path().to_str().expect("UTF-8");
    for verb in ["status", "fit", "report"] {
        let message = refusal(&[verb, here]);
        assert!(message.contains("is not a study"), "{verb}: {message}");
    }
    let message = refusal(&["train", here]);
    assert!(message.contains("config.toml"), "{message}");
}

#[test]
fn a_model_file_is_shown_at_every_stage() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = dir.path().join("model.toml");
    let text =
        "n_layers = 1\nn_heads = 2\nd_head = 8\nd_model = 16\nd_ff = 32\nvocab_size = 64\nseq_len = 16\n";
    std::fs::write(&model, text).expect("written");
    let model = model.to_str().expect("UTF-8");
    let marks = [
        ("graph", "graph @"),
        ("fused", "graph @"),
        ("dot", "digraph after"),
        ("html", "<svg class=\"graph\" id=\"after\""),
        ("plan", "arena"),
        ("mlir", "func.func"),
        ("llvm", "define"),
        ("asm", "ret"),
    ];
    for (stage, mark) in marks {
        let shown = stdout(isoflop(&["compile", model, "--emit", stage]));
        assert!(shown.contains(mark), "--emit {stage} has no `{mark}`: {}", &shown[..shown.len().min(500)]);
    }
    let explained = stdout(isoflop(&["compile", model, "--explain", "fusion"]));
    assert!(explained.contains("tanh layers.0.gelu") && explained.contains("refused: "), "{explained}");
    let as_json = stdout(isoflop(&["compile", model, "--explain", "fusion", "--output", "json"]));
    let json: serde_json::Value = serde_json::from_str(&as_json).expect("JSON");
    let outcomes: Vec<_> =
        json["decisions"].as_array().expect("a list").iter().map(|d| &d["outcome"]).collect();
    assert!(outcomes.iter().any(|o| o["fused"]["kernel"].is_u64()), "{as_json}");
    assert!(outcomes.iter().any(|o| o["refused"] == "scalar-apart"), "{as_json}");
    let explain = |op: &str| -> Vec<serde_json::Value> {
        let text = stdout(isoflop(&["compile", model, "--explain", op, "--output", "json"]));
        serde_json::from_str(&text).expect("JSON")
    };
    // GELU's terms stay in registers; its product with the weights needs its result in memory.
    let gelu = explain("layers.0.gelu");
    let (kept, passing): (Vec<_>, Vec<_>) = gelu.iter().partition(|v| v["memory"].is_object());
    assert!(passing.len() > kept.len() && !kept.is_empty(), "{gelu:?}");
    assert!(passing.iter().all(|v| !v["registers"].as_array().expect("a list").is_empty()), "{gelu:?}");
    let why = kept[0]["why"].to_string();
    assert!(why.contains("a product reads it") && why.contains("the backward pass needs it"), "{why}");
    let id = kept[0]["value"].as_str().expect("an id");
    assert_eq!(explain(id), [kept[0].clone()]);
    let loss = stdout(isoflop(&["compile", model, "--explain", "loss"]));
    assert!(loss.contains("it is the output loss") && loss.contains("launches "), "{loss}");
    let embedding = explain("%param.embed");
    assert_eq!(embedding[0]["memory"]["space"], "state", "{embedding:?}");
    for (op, hint) in
        [("gelo", "did you mean `gelu`"), ("%99999", "the nearest are %"), ("%lx", "did you mean `%lr`")]
    {
        let message = refusal(&["compile", model, "--explain", op]);
        assert!(message.contains(hint), "{message}");
    }
    let graph = stdout(isoflop(&["compile", model, "--emit", "graph"]));
    let mut opt = isoflop(&["opt", "-", "--passes", "default"]);
    opt.write_stdin(graph);
    assert_eq!(stdout(opt), stdout(isoflop(&["compile", model, "--emit", "fused"])));
}

#[test]
fn a_memory_budget_is_met_or_refused_with_what_is_alive() {
    let nano = &example("nano.toml");
    let explain = |more: &[&str]| {
        let args = [&["compile", nano, "--size", "103k", "--explain", "memory"], more].concat();
        stdout(isoflop(&args))
    };
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&explain(&[more, &["--output", "json"]].concat())).expect("JSON")
    };
    let whole = json(&[]);
    let bytes = |v: &serde_json::Value| v.as_u64().expect("bytes");
    let peak = bytes(&whole["peak"]["bytes"]);
    let alive = whole["peak"]["alive"].as_array().expect("values");
    let sum: u64 = alive.iter().map(|a| bytes(&a["bytes"])).sum();
    assert_eq!(sum + bytes(&whole["peak"]["unused"]), peak);
    assert!(alive.iter().any(|a| a["source"] == "mul layers.1.gelu" && a["kind"] == "activations"));
    let curve = whole["curve"].as_array().expect("points");
    assert_eq!((bytes(&curve[0]["bytes"]), &whole["recomputed"]), (peak, &serde_json::Value::Null));
    // A point of the curve as the budget, written in another unit.
    let budget = bytes(&curve[3]["bytes"]);
    let tight = json(&["--memory-budget", &format!("{}kB", budget.div_ceil(1000))]);
    assert!(
        bytes(&tight["peak"]["bytes"]) <= budget + 1000
            && tight["recomputed"]["rerun"][0]["group"].is_string()
    );
    assert_eq!(tight["curve"], whole["curve"]);
    let text = explain(&["--memory-budget", "8MB"]);
    for words in
        ["activations kept", "within the budget by computing again: ", "by the costs of `cpu`", "nothing"]
    {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    let message = refusal(&["compile", nano, "--size", "103k", "--memory-budget", "1MB", "--emit", "plan"]);
    for words in ["the memory budget is 1.00 MB, and the training step takes", "at least", "largest: "] {
        assert!(message.contains(words), "{message}");
    }
    let message = refusal(&["compile", nano, "--memory-budget", "lots"]);
    assert!(message.contains("`lots` is no amount of memory; write 2GB, 512MB or 1.5GiB"), "{message}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("isoflop"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder with a prepared corpus, a sweep of two budgets and two sizes over it, and a kernel cache.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().expect("a directory");
        let words = ["loss ", "token ", "model ", "budget ", "step ", "width\n"];
        let text: String =
            (0..60_000u64).map(|i| words[(i * i * 7 + i / 3) as usize % words.len()]).collect();
        std::fs::write(dir.path().join("text.txt"), text).expect("written");
        let sweep = "[sweep]\nname = \"small\"\n[family]\nname = \"nano\"\n[plan]\nkind = \"isoflop\"\n\
                     flops = [2e9, 4e9]\nsizes = [\"7.5k\", \"10k\"]\n[train]\nbatch_tokens = 1024\n\
                     lr = { rule = \"width\", base = 0.16 }\nvalidation_sequences = 16\n\
                     [data]\ntrain = \"corpus\"\n[fit]\nbootstrap = 20\n";
        std::fs::write(dir.path().join("sweep.toml"), sweep).expect("written");
        let lab = Lab { dir };
        stdout(lab.command(&["data", "prepare", "--out", "corpus", "--validation", "0.1", "text.txt"]));
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = isoflop(args);
        command.current_dir(self.dir.path()).env("ISOFLOP_CACHE", self.path("cache"));
        command
    }

    fn run(&self, out: &str, jobs: &str) -> std::process::Output {
        let mut command = self.command(&["run", "sweep.toml", "--out", out, "--jobs", jobs]);
        command.output().expect("started")
    }

    /// Everything of a study that a result depends on.
    fn results(&self, study: &str) -> Vec<Vec<u8>> {
        let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let ids = ["c2e9-n7.5k-s0", "c2e9-n10k-s0", "c4e9-n7.5k-s0", "c4e9-n10k-s0"];
        let metrics = ids.map(|id| read(self.path(study).join("runs").join(id).join("metrics.csv")));
        metrics.into_iter().chain([read(self.path(study).join("runs.csv"))]).collect()
    }
}

#[track_caller]
fn said(output: &std::process::Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// Starts the sweep anew, sends the signal when one run is done, and gives the exit code.
fn interrupted(lab: &Lab, out: &str, signal: &str) -> Option<i32> {
    let _ = std::fs::remove_dir_all(lab.path(out));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("isoflop"))
        .args(["run", "sweep.toml", "--out", out, "--jobs", "1"])
        .current_dir(lab.dir.path())
        .env("ISOFLOP_CACHE", lab.path("cache"))
        .env("XDG_CONFIG_HOME", NO_CONFIG)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let began = Instant::now();
    let runs = lab.path(out).join("runs.csv");
    while !std::fs::read_to_string(&runs).is_ok_and(|text| text.contains("finished")) {
        assert!(began.elapsed() < Duration::from_secs(60), "no run finished");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    child.wait().expect("ended").code()
}

#[test]
fn a_sweep_runs_warm_killed_or_stopped_to_the_same_bytes() {
    let lab = Lab::new();
    let first = said(&lab.run("one", "1"));
    assert!(first.contains("4 finished, 0 diverged, 0 failed, 0 left"), "{first}");
    let results = lab.results("one");

    let again = said(&lab.run("one", "2"));
    assert!(again.contains("4 of 4 runs are done already") && !again.contains("compil"), "{again}");

    let two = said(&lab.run("two", "2"));
    assert!(two.contains("0 new kernels"), "kernels come from the cache: {two}");
    assert!(lab.results("two") == results, "--jobs changed a result");

    // As soon as one run is done, with another under way: killed, or asked to stop.
    for (out, signal) in [("killed", "-KILL"), ("stopped", "-INT")] {
        // On a busy machine the signal may come after the last run.
        let code = (0..5).map(|_| interrupted(&lab, out, signal)).find(|code| *code != Some(0));
        // None is an end by a signal; 75 says that the same command goes on.
        assert_eq!(code, Some(if out == "killed" { None } else { Some(75) }));
        let rest = said(&lab.run(out, "2"));
        assert!(rest.contains("of 4 runs are done already"), "{rest}");
        assert!(lab.results(out) == results, "{signal} changed a result");
    }

    let table = stdout(lab.command(&["status", "killed"]));
    assert_eq!(table.matches("finished").count(), 4, "{table}");
    let page = stdout(lab.command(&["report", "one"]));
    assert!(lab.path(page.trim()).is_file(), "{page}");
}

#[test]
fn diverged_runs_are_marked_left_out_and_not_tried_again() {
    let lab = Lab::new();
    let text = std::fs::read_to_string(lab.path("sweep.toml")).expect("the sweep");
    let wild = "lr = { rule = \"per-size\", sizes = { \"7.5k\" = 0.01, 10k = 0.01, 21k = 0.01, 28k = 1e9 } }";
    let text = text
        .replace("lr = { rule = \"width\", base = 0.16 }", wild)
        .replace("[\"7.5k\", \"10k\"]", "[\"7.5k\", \"10k\", \"21k\", \"28k\"]")
        .replace("batch_tokens = 1024", "batch_tokens = 256");
    std::fs::write(lab.path("sweep.toml"), text).expect("written");
    let first = said(&lab.run("wild", "2"));
    assert!(first.contains("6 finished, 2 diverged, 0 failed"), "{first}");
    let again = said(&lab.run("wild", "2"));
    assert!(again.contains("8 of 8 runs are done already"), "{again}");
    let fit = stdout(lab.command(&["fit", "wild"]));
    assert!(fit.contains("6 of 8 runs") && fit.contains("left out: c2e9-n28k-s0 (diverged)"), "{fit}");
    let csv = std::fs::read_to_string(lab.path("wild/runs.csv")).expect("runs.csv");
    assert_eq!(csv.lines().filter(|l| l.contains("28k") && l.contains(",diverged,")).count(), 2, "{csv}");
}
