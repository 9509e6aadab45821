//! What comes after a study's fit: losses that were not trained, and the runs that would tell more.

use crate::lab::{Lab, SWEEP, isoflop, run};

const SMALLEST: &str = "\"d4\", n_layers = 1, n_heads = 1, d_head = 4, d_model = 4";
const SMALL: &str = "\"d8\", n_layers = 1, n_heads = 1, d_head = 8, d_model = 8";

#[test]
fn a_study_predicts_losses_and_proposes_its_next_runs() {
    // Smaller sizes, so that both size and length matter to runs as short as these.
    let sweep = SWEEP
        .replace("flops = [1e9, 2e9, 4e9]", "flops = [2e9, 4e9, 8e9]")
        .replace("\"d16\", n_layers = 1, n_heads = 1, d_head = 16, d_model = 16", SMALLEST)
        .replace("\"d32\", n_layers = 1, n_heads = 2, d_head = 16, d_model = 32", SMALL);
    let lab = Lab::new(&sweep);
    lab.run_study("study", &[]);
    // What was trained longest of the middle size, and the same twice as long.
    let runs = std::fs::read_to_string(lab.path("study/runs.csv")).expect("runs.csv");
    let mut runs = csv::Reader::from_reader(runs.as_bytes());
    let headers = runs.headers().expect("a header").clone();
    let place = |name: &str| headers.iter().position(|h| h == name).expect("a column");
    let trained =
        runs.records().map(|row| row.expect("a row")).filter(|row| &row[place("size")] == "d8").last();
    let trained = trained.expect("runs of d8");
    let number = |name: &str| trained[place(name)].parse::<f64>().expect("a number");
    let [n, d, c, seen] = ["params", "tokens", "flops", "validation_loss"].map(number);
    let targets = format!("run,N,D,C,loss\nseen,{n},{d},{c},{seen}\nlonger,{n},{},{},\n", 2.0 * d, 2.0 * c);
    std::fs::write(lab.path("targets.csv"), targets).expect("written");
    let args = ["fit", "study", "--approach", "3", "--predict", "targets.csv", "--predictions", "p.csv"];
    run(lab.command(isoflop(), &args)).expect_code(0).expect_words(&[
        "seen",
        "longer",
        "mean error of 1 measured targets",
    ]);
    let predicted = std::fs::read_to_string(lab.path("p.csv")).expect("p.csv");
    let mut rows = csv::Reader::from_reader(predicted.as_bytes());
    let place = rows.headers().expect("a header").iter().position(|h| h == "loss").expect("a loss");
    let losses: Vec<f64> =
        rows.records().map(|row| row.expect("a row")[place].parse().expect("a number")).collect();
    assert!((losses[0] / seen - 1.0).abs() < 0.1 && losses[1] < losses[0], "{predicted}");
    let fit = std::fs::read_to_string(lab.path("study/fit.json")).expect("fit.json");
    let fit: serde_json::Value = serde_json::from_str(&fit).expect("JSON");
    let rows = fit["predictions"]["rows"].as_array().expect("rows");
    let of_fit: Vec<f64> = rows.iter().map(|r| r["loss"]["value"].as_f64().expect("a loss")).collect();
    assert_eq!(of_fit, losses);

    the_table_of_the_sweep_says_what_the_options_say(&lab);

    // Nine short runs of three sizes determine three parameters at most.
    let asked = ["propose", "study", "--budget", "2e10", "--runs", "3", "--target", "loss@1e11"];
    let more = ["--tie-exponents", "--check-repeats", "0", "--out", "next.toml"];
    let before = std::fs::read(lab.path("study/fit.json")).expect("fit.json");
    run(lab.command(isoflop(), &[&asked[..], &more].concat())).expect_code(0).expect_words(&[
        "loss at 1e11 FLOPs by the fit",
        "3 of ",
        "written to next.toml",
    ]);
    assert_eq!(
        std::fs::read(lab.path("study/fit.json")).expect("fit.json"),
        before,
        "a proposal fits for itself"
    );
    let next = std::fs::read_to_string(lab.path("next.toml")).expect("next.toml");
    assert!(next.contains("Everything but the runs is that of study/sweep.toml"), "{next}");
    let (next, own) =
        (next.parse::<toml::Table>().expect("TOML"), sweep.parse::<toml::Table>().expect("TOML"));
    for table in ["family", "train", "data", "fit"] {
        assert_eq!(next[table], own[table], "{table}");
    }
    let planned = run(lab.command(isoflop(), &["plan", "next.toml", "--output", "json"])).expect_code(0);
    let plan: serde_json::Value = serde_json::from_str(&planned.said).expect("JSON");
    let runs = plan["runs"].as_array().expect("runs");
    let flops: f64 = runs.iter().map(|r| r["flops"].as_f64().expect("FLOPs")).sum();
    assert!(runs.len() == 3 && flops <= 2e10, "{}", planned.said);
    // The next study trains.
    run(lab.command(isoflop(), &["run", "next.toml", "--out", "next"]))
        .expect_code(0)
        .expect_words(&["3 finished, 0 diverged, 0 failed, 0 left"]);
    run(lab.command(isoflop(), &[&asked[..], &["--family", "nano"]].concat()))
        .expect_code(1)
        .expect_words(&["--family is for fits without a sweep"]);
}

/// `[fit]` may change in a study; the fit is that of the same options on the command line.
fn the_table_of_the_sweep_says_what_the_options_say(lab: &Lab) {
    let options =
        ["--approach", "3", "--tie-exponents", "--objective", "mse-log", "--interval", "percentile,profile"];
    let fitted = |more: &[&str]| {
        let args = [&["fit", "study", "--output", "json", "--out", "other.json"], more].concat();
        run(lab.command(isoflop(), &args)).expect_code(0).said
    };
    let asked = fitted(&options);
    assert!(asked.contains("\"law\": \"equal-exponents\""), "{asked}");
    let path = lab.path("study/sweep.toml");
    let sweep = std::fs::read_to_string(&path).expect("sweep.toml");
    let table = "[fit]\napproaches = [3]\ntie_exponents = true\nobjective = \"mse-log\"\n\
                 interval = [\"percentile\", \"profile\"]\n";
    std::fs::write(&path, sweep.replace("[fit]\n", table)).expect("written");
    assert_eq!(fitted(&[]), asked);
    // The command line comes first.
    assert!(fitted(&["--form", "kaplan"]).contains("\"law\": \"kaplan\""));
    std::fs::write(&path, sweep).expect("written");
}
