//! The sentences of every warning: what was found, in plain words with its number, and what to do about it.

use super::checks::WithoutEmbeddings;
use super::options::LawForm;
use super::result::{
    Fit, FitStatus, HeldOut, Inputs, IsoflopMinimum, LeftOut, MinimumFlag, Warning, WarningCode,
};
use std::collections::HashMap;

/// Fits from fewer model sizes than this are unreliable.
const MODELS: usize = 5;
/// Intervals of an exponent wider than this do not tell growth laws apart.
const WIDE: f64 = 0.2;
/// A parabola is a fair model of the loss within this factor of its minimum.
const PARABOLA_REACH: f64 = 16.0;
/// Extrapolation in compute beyond this factor is flagged.
const EXTRAPOLATION: f64 = 10.0;
/// Relative error of the held-out losses that makes a fit of little use.
const USEFUL: f64 = 0.04;
/// Bias of N* or D* at the largest compute that is worth a sentence.
const BIAS: f64 = 0.1;
/// A change of the exponent of N by the way of counting that is worth one.
const BENT: f64 = 0.02;
/// Names listed before "and n more".
const NAMES: usize = 8;

fn warning(code: WarningCode, value: f64, message: String) -> Warning {
    Warning { code, message, value }
}

/// A count with its SI letter: 7.5k, 44M, 1.37B.
pub fn human(value: f64) -> String {
    let (scale, letter) = match value.abs() {
        v if v >= 9.995e11 => (1e12, "T"),
        v if v >= 9.995e8 => (1e9, "B"),
        v if v >= 9.995e5 => (1e6, "M"),
        v if v >= 9.995e2 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let v = value / scale;
    let decimals = if v.abs() >= 99.95 {
        0
    } else if v.abs() >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{v:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{letter}")
}

/// FLOPs as 3e11 or 5.76e23.
pub fn flops(value: f64) -> String {
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => {
            format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn verb(n: usize) -> &'static str {
    if n == 1 { "run was" } else { "runs were" }
}

/// Runs put aside, and conventions and sizes of the runs that remain.
pub(crate) fn of_inputs(inputs: &Inputs, sizes: usize) -> Vec<Warning> {
    let mut found = Vec::new();
    let n = inputs.left_out.len();
    if n > 0 {
        let names: Vec<_> =
            inputs.left_out.iter().map(|LeftOut { id, why }| format!("{id} ({why})")).collect();
        found.push(warning(
            WarningCode::RunsLeftOut,
            n as f64,
            format!(
                "{n} of {} {} left out: {}. If they share a size or a budget, the fit leans on the others.",
                inputs.runs,
                verb(n),
                list(&names)
            ),
        ));
    }
    if inputs.flops_conventions.len() > 1 {
        found.push(warning(
            WarningCode::MixedConventions,
            inputs.flops_conventions.len() as f64,
            format!(
                "FLOPs were counted by different conventions ({}): the compute of these runs cannot be compared. Count all runs by one.",
                inputs.flops_conventions.join(", ")
            ),
        ));
    }
    if sizes < MODELS {
        found.push(warning(
            WarningCode::FewModels,
            sizes as f64,
            format!(
                "The fit rests on {sizes} model sizes; fewer than {MODELS} give unreliable laws. Add sizes."
            ),
        ));
    }
    found
}

/// An approach that was asked for and cannot be fitted.
pub(crate) fn unavailable(approach: u8, why: &str) -> Warning {
    let why = why.strip_prefix(&format!("approach {approach} ")).unwrap_or(why);
    warning(
        WarningCode::ApproachUnavailable,
        approach.into(),
        format!("Approach {approach} was not fitted: it {why}."),
    )
}

/// Another law that was asked for and cannot be fitted.
pub(crate) fn no_variant(form: LawForm, why: &str) -> Warning {
    let message = format!("The law `{}` was not fitted beside approach 3: {why}.", form.name());
    warning(WarningCode::ApproachUnavailable, 3.0, message)
}

/// Flags of the isoFLOP parabolas.
pub(crate) fn of_minima(minima: &[IsoflopMinimum], fitted: bool) -> Vec<Warning> {
    let mut found = Vec::new();
    for m in minima {
        let budget = flops(m.budget);
        match (m.flag, m.params) {
            (MinimumFlag::Edge, params) => {
                let larger = params.is_some_and(|p| p > (m.tried[0] * m.tried[1]).sqrt());
                let (end, size) = if larger { ("largest", m.tried[1]) } else { ("smallest", m.tried[0]) };
                let more = if larger { "larger" } else { "smaller" };
                found.push(warning(
                    WarningCode::MinimumAtEdge,
                    m.budget,
                    format!(
                        "At {budget} FLOPs the minimum is at the {end} size tried ({} parameters), so the true one may lie beyond. This budget is not used; add {more} sizes.",
                        human(size)
                    ),
                ));
            }
            (MinimumFlag::Curvature, _) => found.push(warning(
                WarningCode::WeakCurvature,
                m.curvature,
                format!(
                    "At {budget} FLOPs the losses show no clear valley (curvature {:.2e} nats{}). This budget is not used; widen its sizes or add seeds.",
                    m.curvature,
                    m.curvature_error.map(|e| format!(", standard error {e:.2e}")).unwrap_or_default()
                ),
            )),
            (MinimumFlag::Interior, _) => {}
        }
    }
    found.extend(wide(minima));
    let used = minima.iter().filter(|m| m.flag == MinimumFlag::Interior).count();
    if fitted && used == 2 {
        found.push(warning(
            WarningCode::FewBudgets,
            2.0,
            "Approach 2 draws its power law through two budgets only: nothing shows whether it is one. Add a budget.".into(),
        ));
    }
    found
}

/// Budgets whose sizes reach beyond where the loss is a parabola.
fn wide(minima: &[IsoflopMinimum]) -> Option<Warning> {
    let factor = |m: &IsoflopMinimum| m.params.map_or(1.0, |p| (p / m.tried[0]).max(m.tried[1] / p));
    let far: Vec<&IsoflopMinimum> =
        minima.iter().filter(|m| m.flag == MinimumFlag::Interior && factor(m) > PARABOLA_REACH).collect();
    let most = far.iter().map(|m| factor(m)).fold(0.0, f64::max);
    let names: Vec<String> = far.iter().map(|m| flops(m.budget)).collect();
    (!far.is_empty()).then(|| {
        warning(
            WarningCode::WideGrid,
            most,
            format!(
                "At {} FLOPs the sizes reach up to {most:.0} times away from the minimum, where the loss is not a parabola: approach 2 is biased. Prefer approach 3, or fit sizes within {PARABOLA_REACH:.0} times.",
                list(&names)
            ),
        )
    })
}

/// Approach 1 made from runs whose learning rate decays.
pub(crate) fn decaying(runs: &[&str]) -> Option<Warning> {
    let names: Vec<String> = runs.iter().map(|r| r.to_string()).collect();
    (!runs.is_empty()).then(|| {
        warning(
            WarningCode::DecayingSchedule,
            runs.len() as f64,
            format!(
                "Approach 1 reads losses before the end of decaying schedules ({}): they are higher than those of runs that end there. Trust it only with a constant learning rate.",
                list(&names)
            ),
        )
    })
}

/// Exponents that the data do not determine.
pub(crate) fn unidentified(fit: &Fit) -> Option<Warning> {
    let k = fit.approach;
    let say = |value, text: String| Some(warning(WarningCode::UnidentifiedExponents, value, text));
    match fit.status {
        FitStatus::AtBound => say(
            fit.exponents.a,
            format!(
                "Approach {k} ended with a parameter on its bound: the data do not determine all of E, A, B, alpha and beta. Widen the range of sizes and token counts."
            ),
        ),
        FitStatus::Abnormal => {
            say(fit.exponents.a, format!("Approach {k} found no optimum: its exponents are not to be used."))
        }
        _ => {
            let [low, high] = fit.a_interval()?;
            (high - low > WIDE).then_some(())?;
            say(
                high - low,
                format!(
                    "Approach {k} leaves the exponent of N anywhere from {low:.2} to {high:.2}: the data do not determine it. Add budgets, sizes or seeds."
                ),
            )
        }
    }
}

/// Outliers, with the exponents with and without them.
pub(crate) fn outliers(names: &[String], with: &Fit, without: &Fit) -> Option<Warning> {
    let n = names.len();
    (n > 0).then(|| {
        warning(
            WarningCode::Outliers,
            without.exponents.a - with.exponents.a,
            format!(
                "{n} {} far from the law: {}. With {} N grows as C^{:.3}, without as C^{:.3}. Look at {} before believing either.",
                if n == 1 { "run is" } else { "runs are" },
                list(names),
                if n == 1 { "it" } else { "them" },
                with.exponents.a,
                without.exponents.a,
                if n == 1 { "it" } else { "them" }
            ),
        )
    })
}

/// Pairs of approaches whose intervals of the exponent of N do not meet.
pub(crate) fn disagreements(fits: &[Fit]) -> Vec<Warning> {
    let mut found = Vec::new();
    for (i, p) in fits.iter().enumerate() {
        for q in &fits[i + 1..] {
            let (Some(a), Some(b)) = (p.a_interval(), q.a_interval()) else { continue };
            if [p, q].iter().any(|f| matches!(f.status, FitStatus::AtBound | FitStatus::Abnormal)) {
                continue;
            }
            let gap = (a[0] - b[1]).max(b[0] - a[1]);
            if gap > 0.0 {
                found.push(warning(
                    WarningCode::ApproachesDisagree,
                    (p.exponents.a - q.exponents.a).abs(),
                    format!(
                        "Approaches {} and {} disagree: N grows as C^{:.3} ({:.3} to {:.3}) or as C^{:.3} ({:.3} to {:.3}), and the intervals do not meet.",
                        p.approach, q.approach, p.exponents.a, a[0], a[1], q.exponents.a, b[0], b[1]
                    ),
                ));
            }
        }
    }
    found
}

/// Targets far beyond the data.
pub(crate) fn extrapolations(targets: &[f64], most: f64) -> Vec<Warning> {
    targets
        .iter()
        .filter(|t| **t > EXTRAPOLATION * most)
        .map(|&t| {
            warning(
                WarningCode::Extrapolation,
                t / most,
                format!(
                    "The target of {} FLOPs is {} times the largest run ({}): the intervals hold only if the law does. Add a larger budget.",
                    flops(t),
                    human(t / most),
                    flops(most)
                ),
            )
        })
        .collect()
}

/// A held-out budget predicted worse than without a fit, or worse than is useful.
pub(crate) fn held_out(h: &HeldOut) -> Option<Warning> {
    let percent = |v: f64| format!("{:.1} %", 100.0 * v);
    let what = format!(
        "Fitted without its {} largest runs ({} FLOPs and above), approach 3 misses their losses by {}; the nearest smaller run misses by {}",
        h.n,
        flops(h.flops[0]),
        percent(h.error),
        percent(h.baseline_error)
    );
    let end = if h.error >= h.baseline_error {
        "The law predicts no better than no law: do not extrapolate it."
    } else if h.error > USEFUL {
        "Expect errors at least as large beyond the data."
    } else {
        return None;
    };
    Some(warning(WarningCode::HeldOutError, h.error, format!("{what}. {end}")))
}

/// What approaches 1 and 2 would miss even without noise.
pub(crate) fn bias(fit: &Fit) -> Option<Warning> {
    let bias = fit.bias?;
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    let worst = percent(bias.params).abs().max(percent(bias.tokens).abs());
    (worst > 100.0 * BIAS).then(|| {
        warning(
            WarningCode::ApproachBias,
            bias.a,
            format!(
                "If the law of approach 3 were true, approach {} would find from these runs without noise an exponent of N off by {:+.3}, and at the largest compute N* off by {:+.1} % and D* by {:+.1} %. Prefer approach 3, or narrower sizes around each minimum.",
                fit.approach,
                bias.a,
                percent(bias.params),
                percent(bias.tokens)
            ),
        )
    })
}

/// Small models that are embeddings to a large part.
pub(crate) fn embeddings(fit: &Fit, without: &WithoutEmbeddings) -> Option<Warning> {
    let moved = without.a - fit.exponents.a;
    (moved.abs() > BENT).then(|| {
        warning(
            WarningCode::EmbeddingShare,
            moved,
            format!(
                "The smallest model is {:.0} % embeddings, the largest {:.0} %: counted with embeddings N grows as C^{:.3}, without as C^{:.3}. Say which count is meant, or leave out the smallest sizes.",
                100.0 * without.shares[0],
                100.0 * without.shares[1],
                fit.exponents.a,
                without.a
            ),
        )
    })
}

/// At most so many warnings of one code, and one that says how many more there are.
pub(crate) fn shortened(warnings: Vec<Warning>) -> Vec<Warning> {
    let mut counts: HashMap<WarningCode, usize> = HashMap::new();
    let mut kept: Vec<Warning> = Vec::new();
    for warning in warnings {
        let count = counts.entry(warning.code).or_default();
        *count += 1;
        if *count <= NAMES {
            kept.push(warning);
        }
    }
    let full = |code: WarningCode| counts[&code].saturating_sub(NAMES);
    let codes: Vec<WarningCode> = kept.iter().map(|w| w.code).collect();
    for (i, code) in codes.into_iter().enumerate().rev() {
        let last = kept[i + 1..].iter().all(|w| w.code != code);
        if last && full(code) > 0 {
            let message = format!("{} more like the one before.", full(code));
            kept.insert(i + 1, warning(code, full(code) as f64, message));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [7504.0, 999.6e3, 43_646_976.0, 1.374e9, 280e9, 12.0, 2.5e12].map(human);
        assert_eq!(shown, ["7.5k", "1M", "43.6M", "1.37B", "280B", "12", "2.5T"]);
        assert_eq!([1e11, 5.76e23, 3.14159e20].map(flops), ["1e11", "5.76e23", "3.14e20"]);
    }
}
