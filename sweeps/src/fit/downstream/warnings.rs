//! What a careful reader would point out about accuracies and their sigmoid, each with its number.

use super::{Downstream, DownstreamPoint};
use crate::fit::result::{FitStatus, Warning, WarningCode};
use crate::fit::warnings::flops;

/// Accuracy that rises by less than this from the worst run to the best is at chance.
const LEAST_RISE: f64 = 0.03;
/// So many times the scatter must accuracy rise for its form to show.
const SCATTERS: f64 = 4.0;
/// Runs that reach less than this share of the way from floor to ceiling do not determine the ceiling.
const COVERED: f64 = 0.75;
/// Share of pairs of runs of which the one with the lower loss has the lower accuracy; noise alone gives a half.
const DISCORDANT: f64 = 0.25;
/// Runs compared pair by pair, at most.
const PAIRED: usize = 1000;
/// An accuracy this much below chance is none that a guess gives.
const BELOW: f64 = 0.05;
/// Error of held-out accuracies that makes a law of little use.
const USEFUL: f64 = 0.04;
/// A predicted loss this share of the fitted range below the least is beyond the data.
const BEYOND: f64 = 0.05;
/// Fewer model sizes than this are unreliable.
const MODELS: usize = 5;

fn warning(code: WarningCode, value: f64, message: String) -> Warning {
    Warning { code, message, value }
}

/// Accuracy that cannot be fitted.
pub(super) fn unavailable(n: usize, why: &str) -> Warning {
    warning(WarningCode::DownstreamUnavailable, n as f64, format!("Accuracy was not fitted: {why}."))
}

/// All warnings of one task. `sizes` are the model sizes with an accuracy, and all.
pub(super) fn all(fit: &Downstream, targets: &[f64], [sizes, all_sizes]: [usize; 2]) -> Vec<Warning> {
    let mut found = Vec::new();
    if fit.without_accuracy > 0 {
        let n = fit.without_accuracy;
        let message = format!(
            "{n} of {} runs have no accuracy: the law of the loss rests on them, the sigmoid does not.",
            n + fit.n
        );
        found.push(warning(WarningCode::RunsLeftOut, n as f64, message));
    }
    if sizes < MODELS && all_sizes >= MODELS {
        let message = format!(
            "Accuracies are known of {sizes} model sizes; fewer than {MODELS} give unreliable laws. Evaluate more."
        );
        found.push(warning(WarningCode::FewModels, sizes as f64, message));
    }
    found.extend(below_chance(fit));
    match at_chance(fit) {
        Some(w) => found.push(w),
        None => found.extend(unidentified(fit)),
    }
    found.extend(not_monotone(&fit.points));
    let beyond: Vec<(String, f64)> = fit
        .optimum
        .iter()
        .filter(|o| targets.contains(&o.flops))
        .map(|o| (format!("{} FLOPs", flops(o.flops)), o.loss.value))
        .collect();
    found.extend(beyond_data(fit, &beyond));
    found.extend(held_out(fit));
    found
}

fn below_chance(fit: &Downstream) -> Option<Warning> {
    if !fit.fixed.iter().any(|f| f == "floor") {
        return None;
    }
    let chance = fit.sigmoid.floor;
    let below: Vec<&DownstreamPoint> = fit.points.iter().filter(|p| p.accuracy < chance - BELOW).collect();
    let worst = below.iter().min_by(|p, q| p.accuracy.total_cmp(&q.accuracy))?;
    let message = format!(
        "{} of {} accuracies are more than {BELOW} below the chance of {chance:.3} ({} has {:.3}): the chance is another, or the evaluation is wrong.",
        below.len(),
        fit.n,
        worst.run,
        worst.accuracy
    );
    Some(warning(WarningCode::BelowChance, worst.accuracy, message))
}

fn at_chance(fit: &Downstream) -> Option<Warning> {
    let [best, worst] = fit.losses.map(|loss| fit.sigmoid.accuracy(loss));
    let rise = best - worst;
    let message = match () {
        () if rise < LEAST_RISE => format!(
            "Accuracy rises from {worst:.3} to {best:.3} over all runs: they are at chance, so the sigmoid is not identified. Predict nothing with it; add larger runs, or take a task that smaller ones can do."
        ),
        () if rise < SCATTERS * fit.residual => format!(
            "Accuracy rises from {worst:.3} to {best:.3} over all runs, which scatter about that by {:.3}: too noisy to identify a sigmoid. Take a task with more questions, or add runs.",
            fit.residual
        ),
        () => return None,
    };
    Some(warning(WarningCode::AccuracyAtChance, rise, message))
}

/// Parameters of the sigmoid that the runs do not determine.
fn unidentified(fit: &Downstream) -> Vec<Warning> {
    let s = &fit.sigmoid;
    let on_bound = |name: &str| fit.at_bound.iter().any(|n| n == name);
    let fixed = |name: &str| fit.fixed.iter().any(|n| n == name);
    let shape: Vec<&str> = ["k", "midpoint"].into_iter().filter(|n| on_bound(n)).collect();
    if !shape.is_empty() || fit.status == FitStatus::Abnormal {
        let message = match shape.is_empty() {
            true => "The sigmoid found no optimum: its accuracies are not to be used.".to_string(),
            false => format!(
                "The sigmoid ended with {} on a bound: the runs show no bend of accuracy. Predict within their losses only, or fix its ends with --chance and --ceiling.",
                shape.join(" and ")
            ),
        };
        return vec![warning(WarningCode::UnidentifiedSigmoid, s.k, message)];
    }
    // How far the runs are on the way from floor to ceiling, the best and the worst of them.
    let [best, worst] = fit.losses.map(|loss| 1.0 / (1.0 + (s.k * (loss - s.midpoint)).exp()));
    let undetermined = |end: &str, value: f64, reach: String, remedy: &str| {
        let message = format!(
            "{reach} (midpoint at a loss of {:.3}, runs from {:.3} to {:.3}): its {end} of {value:.3} is not determined by them. {remedy}",
            s.midpoint, fit.losses[0], fit.losses[1]
        );
        warning(WarningCode::AsymptoteUnidentified, value, message)
    };
    let mut found = Vec::new();
    if !fixed("ceiling") && (best < COVERED || on_bound("ceiling")) {
        let reach = format!("The runs reach {:.0} % of the sigmoid", 100.0 * best);
        let remedy = "Add larger runs, or give it with --ceiling.";
        found.push(undetermined("ceiling", s.ceiling, reach, remedy));
    }
    if !fixed("floor") && worst > 1.0 - COVERED {
        let reach = format!("The runs begin at {:.0} % of the sigmoid", 100.0 * worst);
        let remedy = "Add smaller runs, or give it with --chance.";
        found.push(undetermined("floor", s.floor, reach, remedy));
    }
    found
}

fn not_monotone(points: &[DownstreamPoint]) -> Option<Warning> {
    let some: Vec<&DownstreamPoint> = points.iter().step_by(points.len().div_ceil(PAIRED).max(1)).collect();
    let (mut discordant, mut pairs) = (0.0, 0.0);
    for (i, p) in some.iter().enumerate() {
        for q in &some[i + 1..] {
            let product = (p.loss - q.loss) * (p.accuracy - q.accuracy);
            discordant += f64::from(u8::from(product > 0.0));
            pairs += f64::from(u8::from(product != 0.0));
        }
    }
    let share = discordant / f64::max(pairs, 1.0);
    (share > DISCORDANT).then(|| {
        let message = format!(
            "In {:.0} % of the pairs of runs the lower loss goes with the lower accuracy (noise alone gives 50 %): this loss does not order the accuracies of this task. Look for another loss of the task.",
            100.0 * share
        );
        warning(WarningCode::NotMonotone, share, message)
    })
}

/// Targets whose predicted loss the runs do not reach; `targets` are names with losses.
pub(crate) fn beyond_data(fit: &Downstream, targets: &[(String, f64)]) -> Option<Warning> {
    let [least, most] = fit.losses;
    let far: Vec<&(String, f64)> =
        targets.iter().filter(|(_, loss)| *loss < least - BEYOND * (most - least)).collect();
    let (name, furthest) = far.iter().min_by(|p, q| p.1.total_cmp(&q.1))?;
    let message = format!(
        "{} of {} targets have a predicted loss below {least:.3}, the least of the runs (the furthest is {name}, {furthest:.3}, {:.0} % of the fitted range beyond): there the sigmoid is extrapolated.",
        far.len(),
        targets.len(),
        100.0 * (least - furthest) / (most - least)
    );
    Some(warning(WarningCode::LossBeyondData, *furthest, message))
}

fn held_out(fit: &Downstream) -> Option<Warning> {
    let h = fit.held_out.as_ref()?;
    let points = |v: f64| format!("{:.1} points", 100.0 * v);
    let end = if h.error >= h.baseline_error {
        "The laws predict no better than no law: do not extrapolate them."
    } else if h.error > USEFUL {
        "Expect errors at least as large beyond the data."
    } else {
        return None;
    };
    let message = format!(
        "Fitted without the {} largest runs ({} FLOPs and above), both steps miss their accuracies by {}; the nearest smaller run misses by {}. {end}",
        h.n,
        flops(h.flops[0]),
        points(h.error),
        points(h.baseline_error)
    );
    Some(warning(WarningCode::HeldOutError, h.error, message))
}
