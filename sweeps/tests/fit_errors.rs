//! Bad input of every kind gets a typed error that says what to change, and harmless variations of a file are read.

mod synthetic;

use isoflop_sweeps::fit::{FitError, FitOptions, RunStatus, fit_runs, read_curve, read_runs, write_runs};
use proptest::prelude::*;
use synthetic::sound;

const HEADER: &str = "id,size,status,params,params_non_embedding,tokens,flops,flops_convention,budget,seed,train_loss,validation_loss,reason";

fn read(text: &str) -> Result<Vec<isoflop_sweeps::fit::RunRecord>, FitError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.csv");
    std::fs::write(&path, text).unwrap();
    read_runs(&path)
}

fn message(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn runs_survive_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.csv");
    let mut runs = sound();
    runs[0].status = RunStatus::Failed;
    runs[0].reason = "out of memory, \"16 GiB\" needed".into();
    runs[0].validation_loss = None;
    runs[1].budget = None;
    write_runs(&path, &runs).unwrap();
    assert_eq!(read_runs(&path).unwrap(), runs);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(HEADER));
}

#[test]
fn a_byte_order_mark_and_crlf_are_read() {
    let text = format!("\u{feff}{HEADER}\r\na,1M,finished,1e6,,2e8,1.2e15,6nd,,0,3.1,3.2,\r\n\r\n");
    let runs = read(&text).unwrap();
    assert_eq!((runs.len(), runs[0].id.as_str(), runs[0].validation_loss), (1, "a", Some(3.2)));
}

#[test]
fn files_that_cannot_be_fitted_say_why() {
    let cases = [
        ("".to_string(), "is empty"),
        (format!("{HEADER}\n"), "is empty"),
        (
            "id,status,params,tokens,flops,flops_convention\na,finished,1,1,6,6nd\n".into(),
            "no column `validation_loss`",
        ),
        (
            "id,status,tokens,flops,flops_convention,train_loss\na,finished,1,6,6nd,2\n".into(),
            "no column `params`",
        ),
        (
            format!("{HEADER}\na,,finished,1e6,,2e8,1e15,6nd,,,,NaN,\n"),
            "line 2, column `validation_loss`: found `NaN`",
        ),
        (
            format!("{HEADER}\na,,finished,1e6,,2e8,1e15,6nd,,,,-2.5,\n"),
            "found `-2.5`, expected a loss in nats per token above 0",
        ),
        (format!("{HEADER}\na,,finished,0,,2e8,1e15,6nd,,,,2.5,\n"), "column `params`: found `0`"),
        (
            format!("{HEADER}\na,,done,1e6,,2e8,1e15,6nd,,,,2.5,\n"),
            "found `done`, expected finished, diverged",
        ),
        (format!("{HEADER}\na,,pending,1e6,,,1e15,6nd,,,,,\n"), "column `tokens`: found ``"),
        (format!("{HEADER}\n,,pending,1e6,,1,1e15,6nd,,,,,\n"), "column `id`"),
        (format!("{HEADER}\na,,finished,1e6,,2e8,1e15,6nd,,x,,2.5,\n"), "column `seed`"),
        (
            format!("{HEADER}\na,,finished,1,,2,3,6nd,,,,2,\na,,finished,1,,2,3,6nd,,,,2,\n"),
            "line 3: the id `a` is already used on line 2",
        ),
    ];
    for (text, words) in cases {
        let found = message(&text);
        assert!(found.contains(words) && found.contains("runs.csv"), "{found}\n  lacks: {words}");
    }
    let missing = read_runs("/nowhere/runs.csv").unwrap_err();
    assert!(matches!(missing, FitError::File { .. }) && missing.to_string().contains("/nowhere/runs.csv"));
}

#[test]
fn a_diverged_run_may_have_a_loss_that_is_not_a_number() {
    let runs = read(&format!("{HEADER}\na,,diverged,1e6,,2e8,1e15,6nd,,,NaN,inf,loss is NaN\n")).unwrap();
    assert_eq!((runs[0].train_loss, runs[0].validation_loss), (None, None));
}

#[test]
fn sets_of_runs_that_cannot_be_fitted_say_why() {
    let fit = |runs: &[_]| fit_runs(runs, &[], &FitOptions::default()).unwrap_err();
    let runs = sound();
    assert!(matches!(fit(&[]), FitError::NoRuns));
    assert!(matches!(fit(&runs[..1]), FitError::TooFewRuns { n: 1, .. }));
    let equal: Vec<_> = (0..9).map(|_| runs[0].clone()).collect();
    assert!(matches!(fit(&equal), FitError::NoVariation { n: 9, .. }));
    let mut pending = runs.clone();
    pending.iter_mut().for_each(|r| r.status = RunStatus::Pending);
    assert!(fit(&pending).to_string().contains("none of the 35 runs can be fitted: pending"));
    let few = fit(&runs[..2]).to_string();
    assert!(few.contains("approach 2 needs") && few.contains("approach 3 needs 6 different runs"), "{few}");
    for bad in [f64::NAN, -1.0, 0.0, f64::INFINITY] {
        let mut runs = sound();
        runs[2].validation_loss = Some(bad);
        let error = fit(&runs);
        assert!(matches!(error, FitError::BadRecord { field: "validation_loss", .. }), "{error}");
        assert!(error.to_string().contains(&runs[2].id));
    }
}

#[test]
fn options_outside_their_range_are_refused() {
    let fit = |options: FitOptions| fit_runs(&sound(), &[], &options).unwrap_err().to_string();
    let usual = FitOptions::default;
    assert!(fit(FitOptions { level: 1.0, ..usual() }).contains("fit option `level` is 1"));
    assert!(fit(FitOptions { approaches: vec![4], ..usual() }).contains("`approaches` is [4]"));
    assert!(fit(FitOptions { approaches: vec![], ..usual() }).contains("one or more of 1, 2, 3"));
    assert!(fit(FitOptions { bootstrap: 1 << 40, ..usual() }).contains("0 to 100000 resamples"));
    assert!(fit(FitOptions { targets: vec![-1.0], ..usual() }).contains("`targets` is -1"));
}

#[test]
fn curves_are_read_with_gaps_and_without_a_torn_last_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.csv");
    let text = "step,tokens,flops,train_loss,validation_loss,lr,grad_norm\n1,256,1e9,5.5,,0.1,1.0\n2,512,2e9,NaN,5.4,0.1,1.0\n3,76";
    std::fs::write(&path, text).unwrap();
    let curve = read_curve(&path, "a").unwrap();
    assert_eq!(curve.points.len(), 2);
    assert_eq!((curve.points[0].validation_loss, curve.points[1].train_loss), (None, None));
    std::fs::write(&path, "step,tokens,flops,train_loss\n1,x,1e9,5.5\n").unwrap();
    let error = read_curve(&path, "a").unwrap_err().to_string();
    assert!(error.contains("line 2, column `tokens`: found `x`"), "{error}");
    std::fs::write(&path, "step,tokens,flops,train_loss\r\n1,256,1e9,5.5\r\n\r\n2,x,2e9,5.4\r\n").unwrap();
    let error = read_curve(&path, "a").unwrap_err().to_string();
    assert!(error.contains("line 4, column `tokens`: found `x`"), "{error}");
    std::fs::write(&path, "step,tokens,flops\n1,1,1\n").unwrap();
    assert!(read_curve(&path, "a").unwrap_err().to_string().contains("no column `train_loss`"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever numbers the runs hold, a fit returns: a report of finite numbers, or an error.
    #[test]
    fn fits_never_panic(
        rows in prop::collection::vec((1u32..12, 1u32..12, 0.01f64..20.0, prop::option::of(0u32..3)), 0..24),
    ) {
        let runs: Vec<_> = rows.iter().enumerate().map(|(i, &(n, d, loss, budget))| {
            let budget = budget.map(|b| 1e17 * 10f64.powi(b as i32));
            synthetic::run(format!("r{i}"), 1e5 * 2f64.powi(n as i32), 1e7 * 3f64.powi(d as i32), budget, loss)
        }).collect();
        let options = FitOptions { bootstrap: 25, ..Default::default() };
        if let Ok(report) = fit_runs(&runs, &[], &options) {
            let text = serde_json::to_string(&report).unwrap();
            prop_assert!(!text.contains("null"), "{}", text);
        }
    }
}
