//! Every warning about accuracies: a ladder that raises it and a sound one, which raises none.

mod synthetic;

use isoflop_sweeps::fit::input::{ReadOptions, read_bytes, read_targets};
use isoflop_sweeps::fit::{
    DownstreamOptions, FitDocument, FitOptions, LossParams, Sigmoid, Warning, WarningCode, fit_input, predict,
};
use std::fmt::Write;
use synthetic::Noise;

const LAW: LossParams = LossParams { e: 0.55, a: 60.0, b: 180.0, alpha: 0.32, beta: 0.3 };
const TASK: Sigmoid = Sigmoid { floor: 0.25, ceiling: 0.95, k: 12.0, midpoint: 0.9 };
const SIZES: [f64; 6] = [1e8, 1.9e8, 3.7e8, 7.6e8, 1.3e9, 3.2e9];

/// A ladder with this accuracy for each loss; `scatter` is that of the accuracies.
fn ladder(accuracy: impl Fn(f64, f64) -> f64, scatter: f64) -> String {
    let mut random = Noise::new(7);
    let mut text = "run,N,D,loss,accuracy\n".to_string();
    for n in SIZES {
        for ratio in [10.0, 20.0, 40.0, 100.0, 200.0] {
            let loss = LAW.loss(n, n * ratio) * (5e-4 * random.next()).exp();
            let found = (accuracy(n, loss) + scatter * random.next()).clamp(0.0, 1.0);
            let found = if found.is_nan() { String::new() } else { found.to_string() };
            let _ = writeln!(text, "{n:e}-{ratio},{n},{},{loss},{found}", n * ratio);
        }
    }
    text
}

fn fitted(table: &str, downstream: DownstreamOptions) -> FitDocument {
    let input = read_bytes("t.csv", table.as_bytes(), &ReadOptions::default()).expect("a table");
    let options = FitOptions {
        approaches: vec![3],
        bootstrap: 100,
        targets: vec![1e20],
        downstream,
        ..Default::default()
    };
    fit_input(&input, &options).expect("a fit")
}

fn chance(chance: f64) -> DownstreamOptions {
    DownstreamOptions { chance: [(String::new(), chance)].into(), ..Default::default() }
}

#[track_caller]
fn raised(table: &str, downstream: DownstreamOptions, code: WarningCode, words: &str) -> Warning {
    let found = fitted(table, downstream).warnings;
    let warning = found.iter().map(|w| &w.warning).find(|w| w.code == code);
    let warning = warning.unwrap_or_else(|| panic!("{code:?} is missing from {found:#?}"));
    assert!(warning.message.contains(words), "{}", warning.message);
    warning.clone()
}

#[test]
fn a_sound_ladder_raises_nothing() {
    let found = fitted(&ladder(|_, l| TASK.accuracy(l), 0.004), DownstreamOptions::default()).warnings;
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn accuracy_at_chance_or_too_noisy() {
    let flat = ladder(|_, _| 0.25, 0.008);
    let w = raised(&flat, chance(0.25), WarningCode::AccuracyAtChance, "they are at chance");
    assert!(w.value < 0.03);
    let noisy = ladder(|_, l| TASK.accuracy(l), 0.25);
    raised(&noisy, DownstreamOptions::default(), WarningCode::AccuracyAtChance, "too noisy");
}

#[test]
fn an_end_that_no_run_shows() {
    let early = Sigmoid { midpoint: 0.62, ..TASK };
    let table = ladder(|_, l| early.accuracy(l), 0.002);
    let free = DownstreamOptions::default();
    raised(&table, free.clone(), WarningCode::AsymptoteUnidentified, "--ceiling");
    let given = DownstreamOptions { ceiling: Some(0.95), ..free.clone() };
    assert!(
        fitted(&table, given).warnings.iter().all(|w| w.warning.code != WarningCode::AsymptoteUnidentified)
    );
    let late = Sigmoid { midpoint: 1.2, k: 8.0, ..TASK };
    let table = ladder(|_, l| late.accuracy(l), 0.001);
    raised(&table, free, WarningCode::AsymptoteUnidentified, "--chance");
}

#[test]
fn an_arc_without_a_bend_is_no_sigmoid() {
    let late = Sigmoid { midpoint: 1.9, k: 3.0, ..TASK };
    let table = ladder(|_, l| late.accuracy(l), 0.0);
    let w =
        raised(&table, DownstreamOptions::default(), WarningCode::UnidentifiedSigmoid, "midpoint on a bound");
    assert!(w.message.contains("no bend"), "{}", w.message);
}

#[test]
fn accuracy_that_does_not_follow_its_loss() {
    // Every second size does much worse than its loss says.
    let odd = |n: f64| SIZES.iter().position(|s| *s == n).is_some_and(|i| i % 2 == 1);
    let table = ladder(|n, l| TASK.accuracy(l) - if odd(n) { 0.4 } else { 0.0 }, 0.01);
    let w = raised(&table, DownstreamOptions::default(), WarningCode::NotMonotone, "noise alone gives 50 %");
    assert!(w.value > 0.25 && w.value < 0.75, "{}", w.value);
}

#[test]
fn few_models_and_gaps() {
    let table = ladder(|n, l| if n > 8e8 { f64::NAN } else { TASK.accuracy(l) }, 0.002);
    let w = raised(&table, DownstreamOptions::default(), WarningCode::FewModels, "known of 4 model sizes");
    assert_eq!(w.value, 4.0);
    let w = raised(
        &table,
        DownstreamOptions::default(),
        WarningCode::RunsLeftOut,
        "10 of 30 runs have no accuracy",
    );
    assert_eq!(w.value, 10.0);
    let three = ladder(|n, l| if n > 1.5e8 || l > 0.95 { f64::NAN } else { TASK.accuracy(l) }, 0.002);
    let w =
        raised(&three, DownstreamOptions::default(), WarningCode::DownstreamUnavailable, "different losses");
    assert!(w.value < 5.0, "{w:?}");
}

#[test]
fn a_chance_that_is_another() {
    let table = ladder(|_, l| TASK.accuracy(l), 0.002);
    let w = raised(&table, chance(0.5), WarningCode::BelowChance, "below the chance of 0.500");
    assert!(w.value < 0.4, "{w:?}");
}

#[test]
fn losses_that_no_run_reaches() {
    let table = ladder(|_, l| TASK.accuracy(l), 0.002);
    let input = read_bytes("t.csv", table.as_bytes(), &ReadOptions::default()).expect("a table");
    let mut options = FitOptions { approaches: vec![3], bootstrap: 50, ..Default::default() };
    options.targets = vec![1e24];
    let mut document = fit_input(&input, &options).expect("a fit");
    let codes =
        |d: &FitDocument| d.warnings.iter().filter(|w| w.warning.code == WarningCode::LossBeyondData).count();
    assert_eq!(codes(&document), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("targets.csv");
    std::fs::write(&path, "run,N,D\nnear,1e9,1e11\nfar,7e9,4e12\n").expect("written");
    let targets = read_targets(&path, &ReadOptions::default(), false).expect("targets");
    predict(&mut document, &input.runs, &[], &targets);
    assert_eq!(codes(&document), 2);
    let said = &document.warnings.last().expect("a warning").warning;
    assert!(
        said.message.contains("1 of 2 targets") && said.message.contains("the furthest is far"),
        "{}",
        said.message
    );
}

#[test]
fn held_out_runs_that_break_the_law() {
    // The two largest sizes do no better than chance.
    let table = ladder(|n, l| if n > 1e9 { 0.3 } else { TASK.accuracy(l) }, 0.002);
    let w = raised(
        &table,
        DownstreamOptions::default(),
        WarningCode::HeldOutError,
        "both steps miss their accuracies",
    );
    assert!(w.value > 0.04, "{w:?}");
}

#[test]
fn accuracy_without_its_first_step() {
    let input =
        read_bytes("t.csv", ladder(|_, l| TASK.accuracy(l), 0.002).as_bytes(), &ReadOptions::default());
    let mut input = input.expect("a table");
    input.runs.iter_mut().for_each(|r| r.budget = Some(10f64.powf(r.flops.log10().round())));
    let options = FitOptions { approaches: vec![2], bootstrap: 0, ..Default::default() };
    if let Ok(document) = fit_input(&input, &options) {
        let found = document.warnings.iter().find(|w| w.warning.code == WarningCode::DownstreamUnavailable);
        assert!(found.is_some_and(|w| w.warning.message.contains("approach 3, which was not asked for")));
    }
}
