//! The runs that may be proposed: sizes that can be built with round token counts, each as `isoflop plan` would plan it.

use super::error::ProposeError;
use super::template::{Template, counted};
use crate::family::{Base, short_count};
use crate::file::{self, ReadError, Sweep};
use crate::fit::design::Known;
use crate::fit::simulate::Point;
use crate::fit::{ParamCount, format_count, format_flops};
use crate::plan::{Plan, PlanError, PlannedRun, plan};
use isoflop_compiler::config::ModelConfig;
use isoflop_compiler::count::{Convention, parameters};
use std::collections::{HashMap, HashSet};

/// Parameters of one shape over those of the one before.
const SIZE_STEP: f64 = 1.25;
/// Round token counts of a decade, about 10 % apart: the preferred numbers E24 of IEC 60063.
const ROUND: [f64; 24] = [
    1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0, 3.3, 3.6, 3.9, 4.3, 4.7, 5.1, 5.6, 6.2, 6.8,
    7.5, 8.2, 9.1,
];
/// Where the fitted runs have hardly more than one ratio of tokens to parameters, ratios within this factor of the optimum's
/// are tried too.
const ROOM: f64 = 4.0;

/// Runs that can be planned.
pub(super) struct Candidates {
    pub runs: Vec<PlannedRun>,
    /// The round token count of each, before it becomes whole steps.
    pub nominal: Vec<f64>,
    /// Each as the design sees it.
    pub points: Vec<Point>,
    /// Shapes beside those of the template.
    pub shapes: Vec<(String, ModelConfig)>,
    pub tokens_per_param: [f64; 2],
}

/// Tokens for a parameter that are tried where a user gives none: those of the fitted runs, and a factor of 4 about the
/// optimum at the budget.
pub(super) fn usual_ratios(known: &Known, budget: f64) -> [f64; 2] {
    let (n, d) = known.law.optimum(budget, known.flops_per_param_token);
    let [low, high] = known.ranges.tokens_per_param;
    [low.min(d / n / ROOM), high.max(d / n * ROOM)]
}

/// Every run of at most `budget` FLOPs, with no fewer parameters, tokens and FLOPs than the least of the fitted runs, and
/// tokens for a parameter within `ratios`. Below, laws bend.
///
/// # Errors
/// When there is none, or the template cannot be planned.
pub(super) fn candidates(
    template: &Template,
    known: &Known,
    convention: Convention,
    budget: f64,
    ratios: [f64; 2],
) -> Result<Candidates, ProposeError> {
    let (least, shortest) = (known.ranges.params[0], known.ranges.tokens[0]);
    // C = k N D >= k N^2 r.
    let most = (budget / (known.flops_per_param_token * ratios[0])).sqrt();
    let tokens = round_counts(
        ratios[0] * least,
        (ratios[1] * most).min(budget / (known.flops_per_param_token * least)),
    );
    let none = || ProposeError::NoCandidates {
        budget: format_flops(budget),
        flops: format_flops(known.ranges.flops[0]),
        params: format_count(least),
        tokens: format_count(shortest),
        ratio: format!("{} to {}", format_count(ratios[0]), format_count(ratios[1])),
    };
    if tokens.is_empty() || most < least {
        return Err(none());
    }
    let read = |shapes: &[(String, ModelConfig)]| -> Result<Sweep, ProposeError> {
        let text = template.grid(shapes, &tokens, convention.name())?;
        Ok(file::parse(template.path(), &text).map_err(ReadError::from)?)
    };
    let mut sweep = read(&[])?;
    let shapes = further_shapes(template, &sweep, known.params, [least, most]);
    if !shapes.is_empty() {
        sweep = read(&shapes)?;
    }
    let planned: Plan = match plan(&sweep) {
        Ok(plan) => plan,
        Err(PlanError::Empty { .. }) => return Err(none()),
    };
    let named: HashMap<String, f64> = sweep
        .sizes
        .iter()
        .flat_map(|s| tokens.iter().map(|&t| (format!("d{t:e}-n{}-s0", s.name), t)))
        .collect();
    let mut found = Candidates {
        runs: Vec::new(),
        nominal: Vec::new(),
        points: Vec::new(),
        shapes,
        tokens_per_param: ratios,
    };
    let mut seen = HashSet::new();
    for run in planned.runs {
        let params = counted(&run, known.params);
        let ratio = run.tokens as f64 / params;
        let enough = params >= least && run.tokens as f64 >= shortest && run.flops >= known.ranges.flops[0];
        let wanted = enough && run.flops <= budget && (ratios[0]..=ratios[1]).contains(&ratio);
        // Round counts that become the same whole steps are one run.
        if let Some(&nominal) = named.get(&run.id).filter(|_| wanted)
            && seen.insert((run.size.clone(), run.tokens))
        {
            found.points.push(point(&run, known.params));
            found.nominal.push(nominal);
            found.runs.push(run);
        }
    }
    if found.runs.is_empty() { Err(none()) } else { Ok(found) }
}

/// A planned run as the design sees it.
pub(super) fn point(run: &PlannedRun, params: ParamCount) -> Point {
    Point {
        id: run.id.clone(),
        params: counted(run, params),
        tokens: run.tokens as f64,
        flops: run.flops,
        convention: run.flops_convention.name().to_owned(),
        budget: None,
        seed: run.seed,
    }
}

/// Shapes of the template's family between its sizes, about 1.25 times apart.
fn further_shapes(
    template: &Template,
    sweep: &Sweep,
    params: ParamCount,
    [least, most]: [f64; 2],
) -> Vec<(String, ModelConfig)> {
    // The sizes of a named family come first, so the first has what they share.
    let (Some(family), Some(first)) = (template.family, sweep.sizes.first()) else { return Vec::new() };
    let ModelConfig { vocab_size, seq_len, tied_embeddings, bias, rms_eps, init_std, .. } = first.model;
    let base = Base { vocab_size, seq_len, tied_embeddings, bias, rms_eps, init_std };
    let mut shapes: Vec<(String, ModelConfig)> = Vec::new();
    let mut wanted = least;
    while wanted <= most * SIZE_STEP {
        let model = family.shape_near(&base, wanted, params == ParamCount::NonEmbedding);
        let name = short_count(parameters(&model).total());
        let known = sweep.sizes.iter().any(|s| s.name == name || s.model == model)
            || shapes.iter().any(|(other, _)| *other == name);
        if !known {
            shapes.push((name, model));
        }
        wanted *= SIZE_STEP;
    }
    shapes
}

/// Round numbers from `low` to `high`.
fn round_counts(low: f64, high: f64) -> Vec<f64> {
    if !(low > 0.0 && low.is_finite() && high.is_finite()) {
        return Vec::new();
    }
    let decades = low.log10().floor() as i32..=high.log10().floor() as i32;
    let all = decades.flat_map(|decade| ROUND.iter().map(move |digits| (digits, decade)));
    // Through text, so that 2.4e9 is that and no neighbour.
    let counts = all.filter_map(|(digits, decade)| format!("{digits}e{decade}").parse::<f64>().ok());
    counts.filter(|t| (low..=high).contains(t) && *t >= 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_are_round_and_within_their_range() {
        let counts = round_counts(8e8, 2.5e9);
        assert_eq!(counts, [8.2e8, 9.1e8, 1e9, 1.1e9, 1.2e9, 1.3e9, 1.5e9, 1.6e9, 1.8e9, 2e9, 2.2e9, 2.4e9]);
        assert_eq!(round_counts(5.0, 4.0), [] as [f64; 0]);
        assert_eq!(round_counts(1.0, f64::INFINITY), [] as [f64; 0]);
    }
}
