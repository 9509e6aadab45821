//! Studies that nothing happens to: what they leave behind, and what a second call does.

use crate::lab::{Lab, SWEEP, assert_same, isoflop, results, run, walk};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Rows of a CSV file by column name.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|e| panic!("{column} of {row:?}: {e}"))
}

fn times(root: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let time = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).expect("a time");
    walk(root).into_iter().map(|path| (path.clone(), time(&path))).collect()
}

#[test]
fn a_study_goes_from_text_to_report() {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &[]).expect_words(&["9 finished, 0 diverged, 0 failed, 0 left"]);
    let study = lab.path("study");
    let runs = rows(&study.join("runs.csv"));
    assert_eq!(runs.len(), 9);
    for row in &runs {
        let (id, dir) = (&row["id"], study.join("runs").join(&row["id"]));
        assert_eq!(row["status"], "finished");
        let metrics = rows(&dir.join("metrics.csv"));
        let (first, last) = (&metrics[0], &metrics[metrics.len() - 1]);
        // Bytes drawn evenly would cost ln 256 = 5.5 nats.
        assert!((number(first, "train_loss") - 5.5).abs() < 0.2, "{id}: {first:?}");
        let validations: Vec<f64> =
            metrics.iter().filter_map(|row| row["validation_loss"].parse().ok()).collect();
        assert!(validations.len() == 4 && validations.is_sorted_by(|a, b| a > b), "{id}: {validations:?}");
        assert_eq!(number(row, "validation_loss"), validations[3], "{id}");
        assert_eq!(number(row, "train_loss"), number(last, "train_loss"), "{id}");
        assert_eq!(number(row, "tokens"), number(last, "tokens"), "{id}");
        assert!((number(row, "flops") / number(row, "budget") - 1.0).abs() < 0.05, "{row:?}");
        let newest = dir.join(format!("checkpoints/step-{:08}", metrics.len()));
        assert!(newest.join("model.safetensors").is_file(), "{}", newest.display());
        assert_eq!(std::fs::read_dir(dir.join("checkpoints")).expect("a folder").count(), 2, "{id}");
    }
    for size in ["d16", "d24", "d32"] {
        let of_size = runs.iter().filter(|row| row["size"] == size);
        let losses: Vec<f64> = of_size.map(|row| number(row, "validation_loss")).collect();
        assert!(
            losses.len() == 3 && losses.is_sorted_by(|a, b| a > b),
            "{size}: more FLOPs, less loss: {losses:?}"
        );
    }

    run(lab.command(isoflop(), &["fit", "study"]))
        .expect_code(0)
        .expect_words(&["9 of 9 runs, validation loss"]);
    let fit = std::fs::read_to_string(study.join("fit.json")).expect("fit.json");
    let fit: serde_json::Value = serde_json::from_str(&fit).expect("JSON");
    assert_eq!((&fit["inputs"]["loss"], &fit["inputs"]["used"]), (&"validation".into(), &9.into()));
    let law =
        &fit["fits"].as_array().expect("fits").iter().find(|f| f["approach"] == 3).expect("a law")["params"];
    let of_law = |name: &str| law[name].as_f64().unwrap_or_else(|| panic!("{name} in {law}"));
    for row in &runs {
        let (n, d) = (number(row, "params"), number(row, "tokens"));
        let loss = of_law("E") + of_law("A") / n.powf(of_law("alpha")) + of_law("B") / d.powf(of_law("beta"));
        assert!((loss / number(row, "validation_loss")).ln().abs() < 0.1, "{loss} for {row:?}");
    }

    run(lab.command(isoflop(), &["report", "study"])).expect_code(0);
    let page = std::fs::read_to_string(study.join("report.html")).expect("report.html");
    assert!(runs.iter().all(|row| page.contains(&row["id"])) && page.contains("</html>"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "<script src"] {
        assert!(!page.contains(outside), "the page needs the network: {outside}");
    }
}

#[test]
fn jobs_and_threads_change_no_byte() {
    let lab = Lab::new(SWEEP);
    lab.run_study("one", &["--jobs", "1", "--threads", "1"]);
    let one = results(&lab.path("one"));
    assert!(one.len() > 9 * 6, "{:?}", one.keys());
    lab.run_study("two", &["--jobs", "2"]);
    assert_same(&results(&lab.path("two")), &one);
    lab.run_study("three", &["--jobs", "3", "--threads", "2"]);
    assert_same(&results(&lab.path("three")), &one);
}

#[test]
fn nothing_is_done_or_compiled_twice() {
    let lab = Lab::new(SWEEP);
    let with_cache = |study: &str, cache: &str| {
        let mut command = lab.command(isoflop(), &["run", "sweep.toml", "--out", study]);
        command.env("ISOFLOP_CACHE", lab.path(cache));
        run(command).expect_code(0)
    };
    let first = with_cache("study", "cache");
    assert!(
        first.said.contains("compiled 3 training steps") && !first.said.contains(" 0 new"),
        "{}",
        first.said
    );

    // Of a finished study neither a run nor an artifact is touched, and the compiler's cache is not even opened.
    let before = ["runs", "artifacts"].map(|folder| times(&lab.path("study").join(folder)));
    let again = with_cache("study", "other-cache").expect_words(&["9 of 9 runs are done already"]);
    assert!(!again.said.contains("compil") && !again.said.contains("start "), "{}", again.said);
    assert!(before == ["runs", "artifacts"].map(|folder| times(&lab.path("study").join(folder))));
    assert!(!lab.path("other-cache").exists());

    // Another study of the same shapes, longer: every kernel comes from the cache, which stays as it was.
    let cached = times(&lab.path("cache"));
    let longer = SWEEP.replace("1e9, 2e9, 4e9", "3e9");
    std::fs::write(lab.path("sweep.toml"), longer).expect("written");
    with_cache("longer", "cache").expect_words(&[
        "compiled 3 training steps",
        " 0 new kernels",
        "3 finished",
    ]);
    assert!(!cached.is_empty() && cached == times(&lab.path("cache")));

    // A study directory belongs to its sweep.
    let wrong = run(lab.command(isoflop(), &["run", "sweep.toml", "--out", "study"])).expect_code(1);
    wrong.expect_words(&["belongs to another sweep", "plan.flops: "]);
}

#[test]
fn diverged_runs_end_early_and_harm_no_other() {
    // Clipping so wide that it does nothing, and a rate that no model survives for one of four sizes.
    let sweep = SWEEP
        .replace("    { name = \"d24\"", "    { name = \"d20\", n_layers = 1, n_heads = 1, d_head = 20, d_model = 20 },\n    { name = \"d24\"")
        .replace("width\", base = 0.16 }", "per-size\", sizes = { d16 = 1e-2, d20 = 1e4, d24 = 7e-3, d32 = 5e-3 } }\noptimizer = { clip = 1e6 }");
    let lab = Lab::new(&sweep);
    lab.run_study("wild", &["--jobs", "1"]).expect_words(&["9 finished, 3 diverged, 0 failed, 0 left"]);
    for row in rows(&lab.path("wild/runs.csv")) {
        let dir = lab.path("wild/runs").join(&row["id"]);
        let status = std::fs::read_to_string(dir.join("status.json")).expect("status.json");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        if row["size"] == "d20" {
            let step = status["step"].as_u64().expect("a step");
            assert!(step < 10 && row["status"] == "diverged", "{row:?}");
            assert!(row["reason"].contains(&format!("train loss of step {step} is ")), "{row:?}");
            assert!(
                !dir.join("checkpoints").join(format!("step-{step:08}")).exists(),
                "a diverged state is saved"
            );
        } else {
            assert!(row["status"] == "finished" && status["step"] == status["steps"], "{row:?}");
        }
    }
    let fit = run(lab.command(isoflop(), &["fit", "wild"])).expect_code(0);
    fit.expect_words(&[
        "9 of 12 runs",
        "left out: c1e9-nd20-s0 (diverged)",
        "left out: c4e9-nd20-s0 (diverged)",
    ]);
    lab.run_study("wild", &[]).expect_words(&["12 of 12 runs are done already"]);

    // The sizes that finished have the numbers that they have without the wild one.
    let tame = sweep
        .replace("kind = \"isoflop\"", "kind = \"isoflop\"\nsizes = [\"d16\", \"d24\", \"d32\"]")
        .replace("d20 = 1e4, ", "");
    std::fs::write(lab.path("sweep.toml"), tame).expect("written");
    lab.run_study("tame", &[]).expect_words(&["9 finished"]);
    let mut with = results(&lab.path("wild/runs"));
    with.retain(|name, _| !name.contains("d20"));
    assert_same(&with, &results(&lab.path("tame/runs")));
}
