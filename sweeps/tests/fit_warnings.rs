//! Every warning: a study that raises it and the sound study, which raises none.

mod synthetic;

use isoflop_sweeps::fit::{FitOptions, LossParams, RunRecord, RunStatus, Warning, WarningCode, fit_runs};
use synthetic::{BUDGETS, LAW, MULTIPLES, count, curves, isoflop, sound};

fn options() -> FitOptions {
    FitOptions { bootstrap: 200, ..Default::default() }
}

fn warnings(runs: &[RunRecord]) -> Vec<Warning> {
    fit_runs(runs, &[], &options()).unwrap().warnings
}

/// The warnings with this code; there must be at least one and its text must hold the words.
fn raised(warnings: &[Warning], code: WarningCode, words: &str) -> Warning {
    let found: Vec<_> = warnings.iter().filter(|w| w.code == code).cloned().collect();
    assert!(!found.is_empty(), "{code:?} is missing from {warnings:#?}");
    assert!(found[0].message.contains(words), "{}", found[0].message);
    found[0].clone()
}

#[test]
fn a_sound_study_raises_nothing() {
    let found = warnings(&sound());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn runs_left_out_are_named() {
    let mut runs = sound();
    runs[3].status = RunStatus::Diverged;
    runs[9].status = RunStatus::Pending;
    runs[12].validation_loss = None;
    let found = warnings(&runs);
    let w = raised(&found, WarningCode::RunsLeftOut, &format!("{} (diverged)", runs[3].id));
    assert!(w.message.contains("(pending)") && w.message.contains("(no validation_loss)"));
    assert_eq!(w.value, 3.0);
}

#[test]
fn mixed_conventions() {
    let mut runs = sound();
    runs[0].flops_convention = "kaplan".into();
    raised(&warnings(&runs), WarningCode::MixedConventions, "6nd, kaplan");
}

#[test]
fn few_models() {
    // The same four sizes at every budget.
    let mut runs = Vec::new();
    for budget in [1e18, 2e18, 4e18] {
        for params in [5e7, 1e8, 2e8, 4e8] {
            let tokens = budget / 6.0 / params;
            let loss = LAW.loss(params, tokens);
            runs.push(synthetic::run(format!("{budget:e}-{params:e}"), params, tokens, Some(budget), loss));
        }
    }
    assert_eq!(raised(&warnings(&runs), WarningCode::FewModels, "4 model sizes").value, 4.0);
}

#[test]
fn an_approach_that_cannot_be_fitted() {
    let mut grid = sound();
    grid.iter_mut().for_each(|r| r.budget = None);
    let w = raised(&warnings(&grid), WarningCode::ApproachUnavailable, "Approach 2 was not fitted");
    assert_eq!(w.value, 2.0);
}

#[test]
fn a_minimum_at_the_edge_of_the_grid() {
    let mut runs = isoflop(&LAW, &BUDGETS[..4], &MULTIPLES, 0.0005, 1);
    runs.extend(isoflop(&LAW, &BUDGETS[4..], &[0.05, 0.1, 0.2, 0.4], 0.0, 1));
    let w = raised(&warnings(&runs), WarningCode::MinimumAtEdge, "largest size tried");
    assert_eq!(w.value, 1e20);
    let mut runs = isoflop(&LAW, &BUDGETS[..4], &MULTIPLES, 0.0005, 1);
    runs.extend(isoflop(&LAW, &BUDGETS[4..], &[3.0, 6.0, 12.0, 24.0], 0.0, 1));
    raised(&warnings(&runs), WarningCode::MinimumAtEdge, "smallest size tried");
}

#[test]
fn weak_and_negative_curvature() {
    let mut runs = sound();
    // Budget 0 opens downwards, budget 1 is all noise.
    for (i, run) in runs[..7].iter_mut().enumerate() {
        run.validation_loss = Some(3.3 - 0.02 * (i as f64 - 3.0).powi(2));
    }
    for (i, run) in runs[7..14].iter_mut().enumerate() {
        run.validation_loss = Some(3.1 + [0.02, -0.02, 0.02, -0.021, 0.02, -0.02, 0.02][i]);
    }
    let found = warnings(&runs);
    assert_eq!(count(&found, WarningCode::WeakCurvature), 2, "{found:#?}");
    assert!(raised(&found, WarningCode::WeakCurvature, "1e18").value < 0.0);
}

#[test]
fn a_grid_too_wide_for_a_parabola() {
    let multiples = [0.02, 0.1, 0.5, 1.0, 2.0, 10.0, 50.0];
    let runs = isoflop(&LAW, &BUDGETS, &multiples, 0.0005, 1);
    assert!(raised(&warnings(&runs), WarningCode::WideGrid, "not a parabola").value > 16.0);
}

#[test]
fn two_budgets_only() {
    let runs = isoflop(&LAW, &BUDGETS[..2], &MULTIPLES, 0.0005, 1);
    raised(&warnings(&runs), WarningCode::FewBudgets, "two budgets");
}

#[test]
fn decaying_schedules_in_approach_1() {
    let runs = sound();
    let found = fit_runs(&runs, &curves(&LAW, &runs, true, 0.0), &options()).unwrap().warnings;
    assert_eq!(raised(&found, WarningCode::DecayingSchedule, "decaying").value, runs.len() as f64);
    let found = fit_runs(&runs, &curves(&LAW, &runs, false, 0.0), &options()).unwrap().warnings;
    assert_eq!(count(&found, WarningCode::DecayingSchedule), 0);
}

#[test]
fn unidentified_exponents() {
    // Noise as large as the valley is deep.
    let runs = isoflop(&LAW, &BUDGETS[..3], &[0.5, 0.7, 1.0, 1.4, 2.0], 0.03, 3);
    raised(&warnings(&runs), WarningCode::UnidentifiedExponents, "");
    // Loss that does not depend on size: A has no effect.
    let flat = LossParams { a: 1e-12, ..LAW };
    let mut runs = sound();
    for run in &mut runs {
        run.validation_loss = Some(flat.loss(run.params, run.tokens));
    }
    let options = FitOptions { approaches: vec![3], ..options() };
    let found = fit_runs(&runs, &[], &options).unwrap().warnings;
    raised(&found, WarningCode::UnidentifiedExponents, "bound");
}

#[test]
fn outliers_with_and_without() {
    let mut runs = sound();
    for i in [4, 20] {
        runs[i].validation_loss = runs[i].validation_loss.map(|l| l * 1.08);
    }
    let report = fit_runs(&runs, &[], &options()).unwrap();
    let w = raised(&report.warnings, WarningCode::Outliers, &runs[4].id);
    assert!(w.message.contains(&runs[20].id) && w.message.starts_with("2 runs are far"));
    assert_eq!(report.without_outliers.unwrap().n, runs.len() - 2);
}

#[test]
fn approaches_that_disagree() {
    // Sizes that drift off centre from budget to budget bias the parabolas' minima; many runs without noise show it.
    let mut runs = Vec::new();
    for (i, budget) in BUDGETS.iter().enumerate() {
        let centre = 2f64.powi(i as i32 - 2);
        let multiples: Vec<f64> = (-20..=20).map(|k| centre * 1.15f64.powi(k)).collect();
        runs.extend(isoflop(&LAW, &[*budget], &multiples, 0.0, 0));
    }
    raised(&warnings(&runs), WarningCode::ApproachesDisagree, "Approaches 2 and 3 disagree");
}

#[test]
fn extrapolation() {
    let with = |target: f64| {
        fit_runs(&sound(), &[], &FitOptions { targets: vec![target], ..options() }).unwrap().warnings
    };
    assert_eq!(raised(&with(5e21), WarningCode::Extrapolation, "50 times").value.round(), 50.0);
    assert_eq!(count(&with(9e20), WarningCode::Extrapolation), 0);
}

#[test]
fn a_top_budget_that_is_not_predicted() {
    let mut runs = sound();
    // The largest budget was trained on something easier.
    let top = BUDGETS[4];
    for run in runs.iter_mut().filter(|r| r.budget == Some(top)) {
        run.validation_loss = run.validation_loss.map(|l| 0.8 * l);
    }
    let w = raised(&warnings(&runs), WarningCode::HeldOutError, "Fitted without its 7 largest runs");
    assert!(w.value > 0.04);
    let report = fit_runs(&sound(), &[], &options()).unwrap();
    let held = report.held_out.unwrap();
    assert!(held.n == 7 && held.error < 0.01 && held.error < held.baseline_error, "{held:?}");
}

#[test]
fn parabolas_that_would_miss_the_law_without_noise() {
    // Sizes that drift off centre from budget to budget: a parabola is no model of so lopsided a valley.
    let mut runs = Vec::new();
    for (i, budget) in BUDGETS.iter().enumerate() {
        let centre = 2.5f64.powi(i as i32 - 2);
        let multiples: Vec<f64> = (-9..=9).map(|k| centre * 1.35f64.powi(k)).collect();
        runs.extend(isoflop(&LAW, &[*budget], &multiples, 0.0, 0));
    }
    let report = fit_runs(&runs, &[], &options()).unwrap();
    let w = raised(&report.warnings, WarningCode::ApproachBias, "approach 2 would find");
    let fit = report.approach(2).unwrap();
    // Without noise the simulated bias is the real one.
    let off = fit.exponents.a - LAW.exponents().a;
    assert!((w.value - off).abs() < 1e-3 && off.abs() > 0.01, "{} {off}", w.value);
    assert_eq!(fit.bias.unwrap().a, w.value);
    let small = fit_runs(&sound(), &[], &options()).unwrap().approach(2).unwrap().bias.unwrap();
    assert!((small.tokens - 1.0).abs() < 0.1, "{small:?}");
}

#[test]
fn embeddings_that_bend_the_exponent() {
    // The law holds for parameters without embeddings; embeddings grow as the square root of the rest.
    let mut runs = sound();
    for run in &mut runs {
        let without = run.params;
        run.validation_loss = Some(LAW.loss(without, run.tokens));
        run.params_non_embedding = Some(without);
        run.params = without + 1.5e4 * without.sqrt();
    }
    let w = raised(&warnings(&runs), WarningCode::EmbeddingShare, "% embeddings");
    assert!(
        w.value.abs() > 0.02 && w.message.contains(&format!("without as C^{:.3}", LAW.exponents().a)),
        "{w:?}"
    );
}

#[test]
fn many_warnings_of_one_kind_end_in_a_count() {
    let budgets: Vec<f64> = (0..20).map(|i| 1e18 * 1.3f64.powi(i)).collect();
    let mut runs = isoflop(&LAW, &BUDGETS[..2], &MULTIPLES, 0.0005, 1);
    runs.extend(isoflop(&LAW, &budgets[3..], &[0.05, 0.1, 0.2, 0.4], 0.0, 1));
    let found = warnings(&runs);
    assert_eq!(count(&found, WarningCode::MinimumAtEdge), 9);
    assert!(found.iter().any(|w| w.message == "9 more like the one before." && w.value == 9.0), "{found:#?}");
}

#[test]
fn repeats_say_how_much_seeds_move_the_loss() {
    let mut runs = Vec::new();
    for seed in 0..4 {
        let mut again = isoflop(&LAW, &BUDGETS, &MULTIPLES, 0.004, 100 + seed);
        again.iter_mut().for_each(|r| r.id = format!("{}-{seed}", r.id));
        runs.extend(again);
    }
    let report = fit_runs(&runs, &[], &options()).unwrap();
    let noise = report.seed_noise.unwrap();
    assert_eq!((noise.groups, noise.runs), (35, 140));
    assert!((noise.deviation / 0.004 - 1.0).abs() < 0.25, "{noise:?}");
    assert!(fit_runs(&sound(), &[], &options()).unwrap().seed_noise.is_none());
}
