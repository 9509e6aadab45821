//! `isoflop fit` on tables: what it prints and writes, equal bytes for equal input, and what it refuses.
#![cfg(feature = "study")]

mod command;

use command::{isoflop, refusal, stdout};
use std::path::Path;

/// Chinchilla's published law at sizes and lengths; with `names` as the header.
fn points(header: &str) -> String {
    let mut text = format!("{header}\n");
    for n in [44e6f64, 117e6, 417e6, 1.4e9, 7.1e9] {
        for ratio in [2.0, 7.0, 20.0, 70.0] {
            let d = n * ratio;
            let loss = 1.69 + 406.4 / n.powf(0.34) + 410.7 / d.powf(0.28);
            text += &format!("{n},{},{loss}\n", 6.0 * n * d);
        }
    }
    text
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

#[test]
fn a_table_is_fitted_and_nothing_is_written_unasked() {
    let dir = folder(&[("chinchilla.csv", &points("Model Size,Training FLOP,loss"))]);
    let at = dir.path();
    let json = stdout(isoflop(
        at,
        &["fit", "chinchilla.csv", "--approach", "3", "--bootstrap", "50", "--output", "json"],
    ));
    assert_eq!(std::fs::read_dir(at).expect("a folder").count(), 1, "only the table is there");
    let fit: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let top: Vec<&String> = fit.as_object().expect("an object").keys().collect();
    assert_eq!(top, ["fits", "inputs", "warnings"]);
    let law = &fit["fits"][0];
    assert_eq!((&law["approach"], &law["form"], &law["n"]), (&3.into(), &"huber-log".into(), &20.into()));
    for (name, wanted) in [("E", 1.69), ("A", 406.4), ("B", 410.7), ("alpha", 0.34), ("beta", 0.28)] {
        let found = law["params"][name].as_f64().expect(name);
        assert!((found / wanted - 1.0).abs() < 1e-2, "{name}: {found}");
    }
    assert_eq!(fit["inputs"]["source"]["columns"]["params"], "Model Size");
    assert_eq!(fit["inputs"]["source"]["derived"][0], "tokens = flops / (6 params)");
    assert_eq!(fit["inputs"]["source"]["rows"]["each"].as_array().map(Vec::len), Some(20));
    assert_eq!(fit["inputs"]["options"]["bootstrap"], 50);
    assert_eq!(fit["inputs"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn equal_input_gives_equal_bytes_on_any_number_of_threads_and_in_any_folder() {
    let table = points("N,C,loss");
    let written = |threads: &str| {
        let dir = folder(&[("points.csv", &table)]);
        let mut command =
            isoflop(dir.path(), &["fit", "points.csv", "--bootstrap", "60", "--out", "fit.json"]);
        let printed = command.env("RAYON_NUM_THREADS", threads).args(["--output", "json"]);
        let printed = printed.assert().success().get_output().stdout.clone();
        let bytes = std::fs::read(dir.path().join("fit.json")).expect("fit.json");
        assert_eq!(printed, bytes);
        bytes
    };
    assert_eq!(written("1"), written("3"));
}

#[test]
fn a_table_says_what_was_left_out_and_computed() {
    let table = points("N,C,loss") + "1e9,1e20,NaN\n1e9,1e20,\n";
    let dir = folder(&[("points.csv", &table)]);
    let text = stdout(isoflop(dir.path(), &["fit", "points.csv", "--bootstrap", "0", "--targets", "1e22"]));
    for words in [
        "20 of 22 runs",
        "computed: tokens = flops / (6 params)",
        "left out: line 22 (loss is not a number)",
        "left out: line 23 (no loss)",
        "warning: 2 of 22 rows left out: 1 loss is not a number, 1 no loss.",
        "1e22",
    ] {
        assert!(text.contains(words), "{text}\n  lacks: {words}");
    }
}

#[test]
fn runs_are_simulated_fitted_and_their_law_spends_a_budget() {
    let dir = folder(&[("targets.csv", "N,D,loss\n70B,1.4T,1.936\n")]);
    let at = dir.path();
    let design = ["--law", "hoffmann", "--budgets", "1e19,1e20,1e21", "--sizes", "7", "--noise", "0.002"];
    let text = stdout(isoflop(at, &[&["simulate"][..], &design].concat()));
    assert_eq!(
        text,
        stdout(isoflop(at, &[&["simulate"][..], &design].concat())),
        "the same seed, the same runs"
    );
    assert_ne!(text, stdout(isoflop(at, &[&["simulate", "--seed", "1"][..], &design].concat())));
    std::fs::write(at.join("points.csv"), &text).expect("written");
    let fit =
        ["fit", "points.csv", "--out", "fit.json", "--predict", "targets.csv", "--predictions", "p.csv"];
    let printed = stdout(isoflop(at, &fit));
    assert!(
        printed.contains("21 of 21 runs") && printed.contains("mean error of 1 measured targets"),
        "{printed}"
    );
    assert_eq!(std::fs::read_to_string(at.join("p.csv")).expect("p.csv").lines().count(), 2);
    let json =
        stdout(isoflop(at, &["allocate", "--budget", "1e22", "--fit", "fit.json", "--output", "json"]));
    let found: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let number = |key: &str| found[0][key]["value"].as_f64().expect(key);
    assert!((6.0 * number("params") * number("tokens") / 1e22 - 1.0).abs() < 1e-9, "{json}");
    for key in ["params", "tokens", "tokens_per_param", "loss"] {
        assert_eq!(found[0][key]["interval"].as_array().map(Vec::len), Some(2), "{key}");
    }
    assert!(found[0]["shape"]["n_layers"].as_u64().is_some_and(|n| n > 8), "{json}");
    let table = stdout(isoflop(at, &["allocate", "--budget", "1e22", "points.csv", "--bootstrap", "50"]));
    assert!(table.contains("nearest shapes") && table.contains("1e22"), "{table}");
    let spread = ["--repeat", "10", "--targets", "1e23", "--output", "json"];
    let json = stdout(isoflop(at, &[&["simulate", "--fit", "fit.json"][..], &design[2..], &spread].concat()));
    let found: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&found[1]["approach"], &found[1]["fitted"]), (&3.into(), &10.into()));
    let sweep = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/examples/nano.toml");
    let sweep = sweep.to_str().expect("UTF-8");
    let planned = stdout(isoflop(at, &["simulate", "--law", "besiroglu", "--sweep", sweep]));
    assert!(planned.contains("c1e11-n7.5k-s0"), "{planned}");
    for (args, words) in [
        (vec!["simulate", "--law", "E=1"], "expected E=..,A=..,B=..,alpha=..,beta=.."),
        (vec!["simulate", "--law", "hoffmann"], "give the design"),
        (vec!["simulate", "--law", "hoffmann", "--tokens", "1B"], "a grid needs parameter counts"),
        (vec!["simulate", "--law", "hoffmann", "--budgets", "1e20", "--noise=-1"], "--noise"),
        (vec!["allocate", "--budget", "1e20", "--fit", "targets.csv"], "targets.csv"),
        (
            vec!["allocate", "--budget", "1e20", "--fit", "fit.json", "--group", "x"],
            "no law of approach 3 for the group",
        ),
        (vec!["allocate", "--budget=-1", "--fit", "fit.json"], "--budget"),
    ] {
        let found = refusal(isoflop(at, &args));
        assert!(found.contains(words), "{args:?}: {found}");
    }
}

#[test]
fn wrong_use_says_what_to_do() {
    let dir = folder(&[
        ("points.csv", &points("N,C,loss")),
        ("odd.csv", &points("a,b,c")),
        ("comma.csv", "N;D;loss\n1e8;2e9;3,1\n"),
    ]);
    std::fs::create_dir(dir.path().join("folder")).expect("a folder");
    let says = |args: &[&str], words: &[&str]| {
        let found = refusal(isoflop(dir.path(), &[&["fit"], args].concat()));
        for word in words {
            assert!(found.contains(word), "{args:?}: {found}\n  lacks: {word}");
        }
    };
    says(
        &["odd.csv"],
        &["odd.csv: no column for loss was recognised; it has `a`, `b`, `c`", "--map loss=COLUMN"],
    );
    says(
        &["comma.csv"],
        &["comma.csv: line 2, column `loss`: found `3,1`, expected a number with a decimal point"],
    );
    says(&["missing.csv"], &["missing.csv: could not be read", "No such file"]);
    says(&["folder"], &["folder is not a study", "isoflop run SWEEP.toml"]);
    says(&["points.csv", "--approach", "4"], &["--approach: found `4`, expected 1, 2, 3 or all"]);
    says(&["points.csv", "--map", "parms=N"], &["--map: found `parms=N`, expected ROLE=COLUMN"]);
    says(&["points.csv", "--flops-convention", "7nd"], &["expected one of kaplan, 6nd"]);
    says(&["folder", "--map", "params=N"], &["is not a study"]);
    says(&["points.csv", "--level", "2"], &["fit option `level` is 2"]);
    let mapped =
        ["odd.csv", "--map", "params=a,flops=b", "--map", "loss=c", "--approach", "3", "--bootstrap", "0"];
    assert!(stdout(isoflop(dir.path(), &[&["fit"][..], &mapped].concat())).contains("20 of 20 runs"));
}
