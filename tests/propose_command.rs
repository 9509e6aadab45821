//! `isoflop propose`: what it proposes is what `isoflop plan` plans, what it prints, and what it refuses.
#![cfg(feature = "study")]

mod command;

use command::{isoflop, refusal, stdout};
use serde_json::Value;
use std::path::Path;

/// A folder with points.csv, drawn from a law at the scale of nano models, and its fit.json.
fn lab() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let draw = ["simulate", "--law", "hoffmann", "--budgets", "1e13,3e13,1e14", "--sizes", "7"];
    stdout(isoflop(dir.path(), &[&draw[..], &["--noise", "0.003", "--out", "points.csv"]].concat()));
    stdout(isoflop(dir.path(), &["fit", "points.csv", "--bootstrap", "50", "--out", "fit.json"]));
    dir
}

const ASKED: [&str; 8] =
    ["--budget", "3e14", "--runs", "4", "--target", "nstar@1e16", "--check-repeats", "60"];

fn json(dir: &Path, args: &[&str]) -> Value {
    let text = stdout(isoflop(dir, &[&["propose"], args, &["--output", "json"]].concat()));
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(runs: &Value, key: &str) -> Vec<f64> {
    let of = |run: &Value| run[key].as_f64().unwrap_or_else(|| panic!("{key} of {run}"));
    runs.as_array().expect("runs").iter().map(of).collect()
}

/// Holds what `isoflop plan` makes of `file` to the proposal.
#[track_caller]
fn plans_what_was_proposed(dir: &Path, file: &str, proposal: &Value) {
    let mut command = isoflop(dir, &["plan", file, "--output", "json"]);
    command.env("XDG_CONFIG_HOME", dir.join("no-config"));
    let plan: Value = serde_json::from_str(&stdout(command)).expect("JSON");
    for key in ["params", "tokens", "flops", "steps", "batch_tokens", "seed"] {
        assert_eq!(numbers(&plan["runs"], key), numbers(&proposal["runs"], key), "{key}");
    }
    let ids = |runs: &Value| -> Vec<Value> {
        runs.as_array().expect("runs").iter().map(|r| r["id"].clone()).collect()
    };
    assert_eq!(ids(&plan["runs"]), ids(&proposal["runs"]));
    assert_eq!(plan["warnings"].as_array().map(Vec::len), Some(0), "{}", plan["warnings"]);
}

#[test]
fn a_fit_proposes_runs_that_are_planned_exactly() {
    let lab = lab();
    let at = lab.path();
    let more = ["--fit", "fit.json", "--family", "nano", "--out", "next.toml"];
    let found = json(at, &[&ASKED[..], &more].concat());
    assert_eq!(found["runs"].as_array().map(Vec::len), Some(4));
    let flops = numbers(&found["runs"], "flops");
    assert!(flops.iter().sum::<f64>() <= 3e14 && flops.is_sorted(), "{flops:?}");
    for (n, (d, c)) in numbers(&found["runs"], "params")
        .into_iter()
        .zip(numbers(&found["runs"], "tokens").into_iter().zip(flops))
    {
        assert!((6.0 * n * d / c - 1.0).abs() < 1e-12, "by the convention of the fit");
    }
    let written = std::fs::read_to_string(at.join("next.toml")).expect("next.toml");
    assert_eq!(found["sweep"], written.as_str());
    plans_what_was_proposed(at, "next.toml", &found);

    // The proposal beats the frontier, and both beat nothing.
    let narrower = |design: &str, of: &str| found[design][of].as_f64().expect(of);
    for of in ["predicted_narrower", "simulated_narrower"] {
        assert!(narrower("proposed", of) > narrower("frontier", of), "{found:#}");
        assert!(narrower("frontier", of) > 1.0, "{found:#}");
        assert_eq!(narrower("fitted", of), 1.0);
    }
    let alone = numbers(&found["runs"], "alone");
    assert!(
        alone.iter().all(|a| (1.0..=narrower("proposed", "predicted_narrower")).contains(a)),
        "{alone:?}"
    );
    for design in ["fitted", "proposed", "frontier"] {
        let value = found["value"].as_f64().expect("a value");
        for ends in [&found[design]["predicted"], &found[design]["simulated"]["interval"]] {
            let ends = [0, 1].map(|i| ends[i].as_f64().expect("an end"));
            assert!(ends[0] < value && value < ends[1], "{design}: {ends:?}");
        }
        assert_eq!(found[design]["simulated"]["drawn"], 60);
    }
    assert_eq!(found["noise_from"], "residuals");
    let noise = found["noise"]["deviation"].as_f64().expect("noise");
    assert!((0.0015..0.006).contains(&noise), "drawn with 0.003, found {noise}");
    // The same again, on any number of threads; a fit made on the way, and the table named beside the fit.
    let mut again = isoflop(at, &[&["propose"], &ASKED[..], &more[..4], &["--output", "json"]].concat());
    let again: Value = serde_json::from_str(&stdout({
        again.env("RAYON_NUM_THREADS", "1");
        again
    }))
    .expect("JSON");
    assert_eq!(again, found);
    let mut fitted =
        json(at, &[&ASKED[..], &["points.csv", "--bootstrap", "50", "--family", "nano"]].concat());
    // A fit.json holds its resamples to eight digits.
    fitted["resampled"] = found["resampled"].clone();
    assert_eq!(fitted, found);
}

#[test]
fn a_sweep_gives_its_training_family_and_data() {
    let lab = lab();
    let at = lab.path();
    let sweep = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/examples/nano.toml");
    std::fs::copy(&sweep, at.join("sweep.toml")).expect("a copy");
    let from = ["--fit", "fit.json", "--base", "sweep.toml", "--out", "next.toml"];
    let found = json(at, &[&ASKED[..], &from].concat());
    plans_what_was_proposed(at, "next.toml", &found);
    let [old, new] = ["sweep.toml", "next.toml"].map(|name| {
        let text = std::fs::read_to_string(at.join(name)).expect(name);
        text.parse::<toml::Table>().expect("TOML")
    });
    for table in ["train", "data", "executor", "fit"] {
        assert_eq!(old[table], new[table], "{table}");
    }
    assert_eq!(new["family"]["vocab_size"], old["family"]["vocab_size"]);
    assert_eq!(new["sweep"]["name"].as_str(), Some("nano-isoflop-next"));

    // Rates size by size leave only the sizes that have one.
    let text = std::fs::read_to_string(at.join("sweep.toml")).expect("sweep.toml");
    let rates = "lr = { rule = \"per-size\", sizes = { 230k = 2e-3, 438k = 2e-3, 1.3M = 1e-3 } }\n";
    let rates = rates.replace("1.3M", "\"1.3M\"");
    let kept: Vec<&str> =
        text.lines().filter(|l| !l.starts_with("lr =") && !l.starts_with("sizes =")).collect();
    let text = kept
        .join("\n")
        .replace("tokens_per_param = 100", "")
        .replace("kind = \"isoflop\"", "kind = \"isoflop\"\nsizes = [\"230k\", \"438k\", \"1.3M\"]");
    let text = text.replace("[train]\n", &format!("[train]\n{rates}"));
    std::fs::write(at.join("by-size.toml"), text).expect("written");
    let from = ["--fit", "fit.json", "--base", "by-size.toml", "--out", "next.toml"];
    let found = json(at, &[&ASKED[..], &from].concat());
    plans_what_was_proposed(at, "next.toml", &found);
    let sizes = found["runs"].as_array().expect("runs").iter().map(|r| r["size"].as_str().expect("a size"));
    assert!(sizes.clone().all(|s| ["230k", "438k", "1.3M"].contains(&s)), "{:?}", sizes.collect::<Vec<_>>());
    // The sweep that was written is a base in turn.
    let from = ["--fit", "fit.json", "--base", "next.toml", "--out", "after.toml"];
    plans_what_was_proposed(at, "after.toml", &json(at, &[&ASKED[..], &from].concat()));
}

#[test]
fn the_table_shows_runs_outlook_and_what_to_beware_of() {
    let lab = lab();
    let args = [&["propose", "--fit", "fit.json", "--family", "nano"], &ASKED[..]].concat();
    let text = stdout(isoflop(lab.path(), &args));
    for words in [
        "N* at 1e16 FLOPs by the fit:",
        "4 of ",
        "FLOPs (6nd)",
        "and the proposed",
        "and as many along N*(C)",
        "60 draws of the simulation",
        "warning: [train] and [data] of the sweep are usual values",
        "nothing was written; --out SWEEP.toml writes the sweep",
    ] {
        assert!(text.contains(words), "{text}\n  lacks: {words}");
    }
    // Far beyond the data, and no check.
    let far = ["propose", "--fit", "fit.json", "--family", "nano", "--budget", "3e16", "--runs", "2"];
    let text =
        stdout(isoflop(lab.path(), &[&far[..], &["--target", "loss@1e19", "--check-repeats", "0"]].concat()));
    for words in [
        "times the compute of the largest fitted run",
        "1e19 FLOPs are ",
        "the gain was not checked by simulation",
        "loss at 1e19 FLOPs by the fit:",
    ] {
        assert!(text.contains(words), "{text}\n  lacks: {words}");
    }
}

#[test]
fn what_cannot_be_proposed_is_refused_with_the_reason() {
    let lab = lab();
    let at = lab.path();
    let flat: String = (0..24)
        .map(|i| {
            let (n, d) = (1e6 * 2f64.powi(i % 6), 1e8 * 3f64.powi(i / 6));
            // Loss falls with tokens only.
            format!("{n},{d},{}\n", 2.0 + 400.0 / d.powf(0.3) + 0.002 * f64::from(i * 7 % 5))
        })
        .collect();
    std::fs::write(at.join("flat.csv"), format!("N,D,loss\n{flat}")).expect("written");
    std::fs::create_dir(at.join("moved")).expect("a folder");
    std::fs::copy(at.join("fit.json"), at.join("moved/fit.json")).expect("a copy");
    std::fs::write(at.join("bad.toml"), "[sweep]\nname = \"x\"\n").expect("written");
    let says = |args: &[&str], words: &str| {
        let found = refusal(isoflop(at, &[&["propose"], args].concat()));
        assert!(found.contains(words), "{args:?}: {found}\n  lacks: {words}");
    };
    let with = |more: &[&'static str]| [&ASKED[..], more].concat();
    let but = |option: &str, value: &'static str| {
        let mut args = [&ASKED[..], &["--fit", "fit.json", "--family", "nano"]].concat();
        let at = args.iter().position(|a| *a == option).expect("an option");
        args[at + 1] = value;
        args
    };
    says(&but("--target", "dstar@1e16"), "expected nstar@FLOPs or loss@FLOPs, such as nstar@1e23");
    says(&but("--budget", "0"), "--budget");
    says(&but("--budget", "1e9"), "no run can be planned of 1e13 to 1e9 FLOPs");
    says(&but("--runs", "0"), "--runs: found 0, expected 1 to 200 runs");
    says(&but("--runs", "200"), "do not hold 200 runs: the cheapest that can be planned costs");
    says(&but("--check-repeats", "3"), "--check-repeats: found 3, expected 20 to 100000 draws");
    says(&with(&["flat.csv"]), "the runs do not determine the law: ");
    says(&with(&["points.csv", "--form", "kaplan"]), "approach 3 was fitted by the law `kaplan`");
    says(&with(&["points.csv", "--approach", "2"]), "the fit has no law of approach 3");
    says(&with(&["--fit", "fit.json", "--group", "x"]), "the fit has no group `x`");
    says(&with(&["--fit", "moved/fit.json"]), "was made from `points.csv`, which is not beside it");
    says(&with(&["flat.csv", "--fit", "fit.json"]), "its blake3 differs");
    says(&with(&["--fit", "fit.json", "--base", "bad.toml"]), "bad.toml");
    says(&with(&["--fit", "fit.json", "--tokens-per-param", "20,10"]), "--tokens-per-param: found 20,10");
    says(&["--budget", "1e14", "--runs", "2", "--target", "loss@1e15"], "required");
    let moved = json(at, &with(&["points.csv", "--fit", "moved/fit.json", "--family", "nano"]));
    assert_eq!(moved, json(at, &with(&["--fit", "fit.json", "--family", "nano"])));
}
