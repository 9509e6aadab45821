//! What fitted laws say of sizes that were not run: predictions, allocations, and fit.json read again.

mod synthetic;

use isoflop_compiler::count::parameters;
use isoflop_sweeps::family::FamilyName;
use isoflop_sweeps::fit::allocate::allocate;
use isoflop_sweeps::fit::input::ReadOptions;
use isoflop_sweeps::fit::{FitDocument, FitOptions, WarningCode, fit_runs};
use isoflop_sweeps::results::{Chosen, Wanted, fit_table, read_fit};
use std::path::{Path, PathBuf};
use synthetic::{LAW, sound};

/// A folder with runs.csv from the law with little noise, and a table of targets.
fn folder(targets: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (runs, wanted) = (dir.path().join("runs.csv"), dir.path().join("targets.csv"));
    isoflop_sweeps::fit::write_runs(&runs, &sound()).unwrap();
    std::fs::write(&wanted, targets).unwrap();
    (dir, runs, wanted)
}

fn options() -> FitOptions {
    FitOptions { approaches: vec![3], bootstrap: 100, ..Default::default() }
}

fn fitted(runs: &Path, wanted: Wanted<'_>) -> FitDocument {
    fit_table(runs, &ReadOptions::default(), &options(), Chosen::default(), wanted)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn targets_get_losses_with_intervals_errors_and_a_baseline() {
    let (n, d) = (3e9, 6e10);
    let truth = LAW.loss(n, d);
    let (dir, runs, targets) =
        folder(&format!("run,N,D,loss\nbig,{n},{d},{truth}\nopen,1B,20B,\nlost,,1e9,2\n"));
    let csv = dir.path().join("predicted.csv");
    let wanted = Wanted { predict: Some(&targets), predictions: Some(&csv), ..Default::default() };
    let document = fitted(&runs, wanted);
    let found = document.predictions.as_ref().expect("predictions");
    assert_eq!((found.rows.len(), found.measured), (2, 1));
    let big = &found.rows[0];
    let [low, high] = big.loss.interval.expect("an interval");
    assert!(
        low < big.loss.value && big.loss.value < high && low < truth * 1.002 && high > truth * 0.998,
        "{big:?}"
    );
    assert!((big.error.unwrap() - (big.loss.value / truth - 1.0)).abs() < 1e-12);
    // The nearest run in (ln N, ln D), found the long way.
    let nearest = sound()
        .into_iter()
        .min_by(|p, q| {
            let far = |r: &isoflop_sweeps::fit::RunRecord| {
                (r.params / n).ln().powi(2) + (r.tokens / d).ln().powi(2)
            };
            far(p).total_cmp(&far(q))
        })
        .unwrap();
    assert_eq!(big.baseline, nearest.validation_loss);
    assert!(found.error.unwrap() < 0.005 && found.baseline_error.unwrap() > found.error.unwrap());
    assert_eq!((found.rows[1].measured, found.rows[1].params), (None, 1e9));
    let codes: Vec<_> = document.warnings.iter().map(|w| w.warning.code).collect();
    assert_eq!(codes, [WarningCode::RunsLeftOut, WarningCode::Extrapolation]);
    let text = std::fs::read_to_string(csv).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.contains("\nbig,,3000000000.0,60000000000.0,"), "{text}");
}

#[test]
fn compute_alone_is_predicted_at_its_optimum() {
    let (_dir, runs, targets) = folder("C\n1e20\n5.5e20\n");
    let document = fitted(&runs, Wanted { predict: Some(&targets), ..Default::default() });
    let rows = &document.predictions.as_ref().expect("predictions").rows;
    for row in rows {
        let (n, d) = LAW.optimum(row.flops, 6.0);
        assert!(row.at_optimum && (row.params / n).ln().abs() < 0.3, "{row:?}");
        assert!((6.0 * row.params * row.tokens / row.flops - 1.0).abs() < 1e-9);
        assert!((row.loss.value / LAW.loss(n, d) - 1.0).abs() < 0.005 && row.loss.interval.is_some());
    }
}

#[test]
fn a_law_that_is_worse_than_no_law_says_so() {
    let mut rows = String::from("N,D,loss\n");
    for run in sound() {
        rows += &format!("{},{},{}\n", run.params, run.tokens, 1.2 * run.validation_loss.unwrap());
    }
    let (_dir, runs, targets) = folder(&rows);
    let document = fitted(&runs, Wanted { predict: Some(&targets), ..Default::default() });
    let predictions = document.predictions.as_ref().unwrap();
    assert!((predictions.error.unwrap() - (1.0 - 1.0 / 1.2)).abs() < 0.01);
    assert_eq!(
        predictions.error.unwrap() >= predictions.baseline_error.unwrap(),
        document.warnings.iter().any(|w| w.warning.code == WarningCode::HeldOutError)
    );
}

#[test]
fn allocations_come_from_fit_json_as_from_the_fit() {
    let (dir, runs, _) = folder("C\n1e20\n");
    let out = dir.path().join("fit.json");
    let document = fitted(&runs, Wanted { out: Some(&out), ..Default::default() });
    let again = read_fit(&out).unwrap();
    assert_eq!(again.fits[0].resamples, document.fits[0].resamples);
    let base = FamilyName::Gopher.base();
    let of = |document: &FitDocument| allocate(document, &[1e20, 3e21], None, FamilyName::Gopher, &base);
    let (now, later) = (of(&document), of(&again));
    assert_eq!(now.len(), 2);
    for (a, b) in now.iter().zip(&later) {
        assert_eq!(
            (a.params.value, a.loss.value, &a.shape.d_model),
            (b.params.value, b.loss.value, &b.shape.d_model)
        );
        for (p, q) in [
            (&a.params, &b.params),
            (&a.tokens, &b.tokens),
            (&a.loss, &b.loss),
            (&a.shape.loss, &b.shape.loss),
        ] {
            let (p, q) = (p.interval.expect("an interval"), q.interval.expect("an interval"));
            assert!((0..2).all(|k| (p[k] / q[k] - 1.0).abs() < 1e-5), "{p:?} {q:?}");
        }
        let (n, d) = LAW.optimum(a.flops, 6.0);
        assert!((a.params.value / n).ln().abs() < 0.3 && (a.tokens.value / d).ln().abs() < 0.3);
        let model = base.model(a.shape.n_layers, a.shape.n_heads, a.shape.d_head, a.shape.d_model);
        assert_eq!(parameters(&model).total() as f64, a.shape.params);
        assert!((a.shape.params / a.params.value).ln().abs() < 0.1, "{a:?}");
        assert!(a.shape.loss.value >= a.loss.value);
    }
    assert!(allocate(&again, &[1e20], Some("other"), FamilyName::Gopher, &base).is_empty());
}

#[test]
fn a_long_table_is_fitted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.csv");
    let mut noise = synthetic::Noise::new(3);
    let mut text = String::from("N,D,loss\n");
    for i in 0..120_000 {
        let (n, d) = (1e8 * 1.5f64.powi(i % 11), 1e9 * 1.7f64.powi(i / 11 % 13));
        text += &format!("{n},{d},{:.6}\n", LAW.loss(n, d) * (0.005 * noise.next()).exp());
    }
    std::fs::write(&path, text).unwrap();
    let options = FitOptions { approaches: vec![3], bootstrap: 600, ..Default::default() };
    let document =
        fit_table(&path, &ReadOptions::default(), &options, Chosen::default(), Wanted::default()).unwrap();
    let fit = &document.fits[0].fit;
    assert_eq!(fit.n, 120_000);
    assert!((fit.exponents.a - LAW.exponents().a).abs() < 1e-3, "{:?}", fit.exponents);
    assert_eq!(document.inputs.source.rows.count, 120_000);
    assert!(document.inputs.source.rows.each.is_empty(), "too many hashes to list");
    // No resample is fitted anew; their intervals are as wide as the sandwich covariance says.
    assert_eq!(fit.bootstrap.map(|b| (b.linear, b.resamples, b.used)), Some((true, 600, 600)));
    let covariance = fit.covariance.as_ref().unwrap();
    for (name, truth) in [("alpha", LAW.alpha), ("beta", LAW.beta)] {
        let [low, high] = fit.intervals[name];
        assert!(low < truth && truth < high, "{name}: {low} {high}");
        let place = covariance.names.iter().position(|n| n == name).unwrap();
        let wanted = 2.0 * 1.645 * covariance.matrix[place][place].sqrt();
        assert!(((high - low) / wanted - 1.0).abs() < 0.15, "{name}: {} {wanted}", high - low);
    }
    let warning = &document.warnings.iter().find(|w| w.warning.code == WarningCode::FewerResamples).unwrap();
    assert!(warning.warning.message.contains("Newton step"), "{}", warning.warning.message);
}

#[test]
fn fewer_resamples_than_asked_for_are_told() {
    let (_dir, runs, _) = folder("C\n1e20\n");
    let report = fit_runs(&sound(), &[], &options()).unwrap();
    let source = isoflop_sweeps::fit::input::of_study(&runs).unwrap();
    let of = |bootstrap| {
        let asked = FitOptions { bootstrap, ..options() };
        FitDocument::of_study(&report, &[], &asked, source.clone()).warnings
    };
    assert!(of(100).is_empty());
    let warnings = of(4000);
    assert_eq!((warnings[0].warning.code, warnings[0].warning.value), (WarningCode::FewerResamples, 100.0));
}
