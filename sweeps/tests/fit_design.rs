//! What a fit knows before the next runs: predicted deviations against draws, and the noise of a run.

use isoflop_sweeps::fit::design::{Known, NoiseFrom, Quantity, Target};
use isoflop_sweeps::fit::simulate::{Noise, Simulation, Sizes, isoflop, law};
use isoflop_sweeps::fit::{FitOptions, LawForm, Objective, fit_runs};

/// A fit of runs drawn from a law, with all that is known of it.
fn known(form: LawForm, objective: Objective, seeds: u64) -> Known {
    let law = law("hoffmann").unwrap();
    let sizes = Sizes::Around { count: 9, spacing: 2.0 };
    let points = isoflop(&law, &[1e18, 1e19, 1e20, 1e21], &sizes, seeds);
    let noise = Noise::constant(0.003);
    let draw = Simulation { law, points, noise, outliers: 0.0, outlier_factor: 1.0, seed: 5 };
    let options = FitOptions { approaches: vec![3], bootstrap: 0, form, objective, ..FitOptions::default() };
    let runs = draw.draw(0);
    let report = fit_runs(&runs, &[], &options).unwrap();
    Known::of(report.approach(3).unwrap(), &report.inputs, &options, &runs).unwrap()
}

#[test]
fn the_covariance_predicts_what_draws_show_for_every_form_and_objective() {
    let target = Target { quantity: Quantity::Nstar, flops: 1e23 };
    for (form, objective) in [
        (LawForm::Chinchilla, Objective::HuberLog),
        (LawForm::Chinchilla, Objective::MseLog),
        (LawForm::FixedE(1.69), Objective::MseLog),
        (LawForm::EqualExponents, Objective::HuberLog),
        (LawForm::Chinchilla, Objective::HuberLinear),
    ] {
        let known = known(form, objective, 1);
        // The runs have other exponents: what equal ones miss is noise to them.
        let most = if form == LawForm::EqualExponents { 0.01 } else { 0.005 };
        assert!((0.0015..most).contains(&known.noise.deviation), "{form:?} {objective:?}: {:?}", known.noise);
        let now = known.deviation(&target, &[]);
        let [low, high] = known.interval(&target, now);
        let drawn = known.simulate(&target, &[], 300).unwrap();
        let ratio = (drawn.interval[1] / drawn.interval[0]).ln() / (high / low).ln();
        assert!((0.75..1.3).contains(&ratio), "{form:?} {objective:?}: {ratio} of {now}");
        assert_eq!((drawn.drawn, drawn.fitted), (300, 300));
        // The same runs once more: twice the information.
        let again = known.deviation(&target, &known.points);
        assert!((now / again / 2f64.sqrt() - 1.0).abs() < 1e-6, "{form:?}: {now} {again}");
    }
}

#[test]
fn repeats_give_the_noise() {
    let known = known(LawForm::Chinchilla, Objective::HuberLog, 3);
    assert_eq!(known.noise_from, NoiseFrom::Repeats);
    assert!((known.noise.deviation / 0.003 - 1.0).abs() < 0.3, "{:?}", known.noise);
    assert_eq!(known.points.len(), 108);
}
