//! From a fit and a budget to the next runs: the choice, its sweep file, and what it is expected to bring.

use super::candidates::{Candidates, candidates, point, usual_ratios};
use super::error::ProposeError;
use super::frontier::frontier;
use super::template::{Entry, Template, counted};
use super::warnings::{self, Finding};
use crate::file::{self, ReadError};
use crate::fit::design::{Known, NoiseFrom, Simulated, Target};
use crate::fit::simulate::{Noise, Point};
use crate::fit::{DocumentFit, FitDocument, Inputs, Params, RunRecord, format_flops};
use crate::plan::{Plan, PlannedRun, plan};
use isoflop_compiler::count::Convention;
use serde::Serialize;
use std::str::FromStr;

/// Most runs of a proposal.
const MOST_RUNS: usize = 200;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub document: &'a FitDocument,
    /// The group of the fit, where it has groups.
    pub group: Option<&'a str>,
    /// The runs that were fitted, of that group.
    pub runs: &'a [RunRecord],
    pub template: &'a Template,
    pub target: Target,
    /// FLOPs of all proposed runs together, by the convention of the fitted runs.
    pub budget: f64,
    pub count: usize,
    /// Tokens for a parameter within which runs are sought; those of the fitted runs where not given.
    pub tokens_per_param: Option<[f64; 2]>,
    /// Draws of the check; 0 for none.
    pub repeats: usize,
}

/// A run of the proposal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProposedRun {
    /// As in the plan of the sweep.
    pub id: String,
    pub size: String,
    pub seed: u64,
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_head: usize,
    pub d_model: usize,
    pub d_ff: usize,
    /// Counted as the fit counts.
    pub params: f64,
    pub tokens: u64,
    pub flops: f64,
    pub steps: u64,
    pub batch_tokens: u64,
    /// How many times narrower the target's interval is with this run alone.
    pub alone: f64,
}

/// What is to be expected once a design is trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlook {
    /// Runs beside the fitted ones, and their FLOPs.
    pub runs: usize,
    pub flops: f64,
    /// The target's interval by the covariance, and how many times narrower it is than now, in its logarithm.
    pub predicted: [f64; 2],
    pub predicted_narrower: f64,
    /// The spread of the target over simulated draws, and how many times narrower it is than that of the fitted runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated: Option<Simulated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simulated_narrower: Option<f64>,
}

/// The next runs and what they are good for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub target: Target,
    /// The target by the fitted law.
    pub value: f64,
    /// Share of its intervals.
    pub level: f64,
    /// The interval of the fit's resamples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resampled: Option<[f64; 2]>,
    pub noise: Noise,
    pub noise_from: NoiseFrom,
    pub budget: f64,
    /// FLOPs of the proposed runs.
    pub flops: f64,
    pub flops_convention: Convention,
    /// Runs that were compared.
    pub candidates: usize,
    pub tokens_per_param: [f64; 2],
    pub runs: Vec<ProposedRun>,
    pub fitted: Outlook,
    pub proposed: Outlook,
    /// Runs equally spaced along the fitted N*(C) for the same budget.
    pub frontier: Outlook,
    pub warnings: Vec<String>,
    /// The sweep file of the proposed runs.
    pub sweep: String,
}

/// Chooses the runs that leave the shortest interval of the target for the budget, and tries them out.
///
/// # Errors
/// A fit without a law that is determined, an option outside its range, a budget that holds no such runs, or a template
/// that cannot be planned.
pub fn propose(request: &Request<'_>) -> Result<Proposal, ProposeError> {
    check(request)?;
    let (fit, inputs) = law_of(request)?;
    let known = Known::of(&fit.fit, inputs, &request.document.inputs.options, request.runs)?;
    let (target, budget) = (&request.target, request.budget);
    let named = match inputs.flops_conventions.as_slice() {
        [one] => Convention::from_str(one).ok(),
        _ => None,
    };
    let convention = named.unwrap_or(Convention::SixNd);
    let ratios = request.tokens_per_param.unwrap_or_else(|| usual_ratios(&known, budget));
    let found = candidates(request.template, &known, convention, budget, ratios)?;
    let best = known.best(target, &found.points, budget, request.count).ok_or_else(|| {
        let cheapest = found.points.iter().map(|p| p.flops).fold(f64::INFINITY, f64::min);
        let (budget, cheapest) = (format_flops(budget), format_flops(cheapest));
        ProposeError::Budget { budget, runs: request.count, cheapest }
    })?;
    let sweep = written(request, &known, &found, &best, convention)?;
    let planned = planned(request.template, &sweep)?;
    let points: Vec<Point> = planned.runs.iter().map(|run| point(run, known.params)).collect();

    let now = known.deviation(target, &[]);
    let mut fitted = outlook(request, &known, &[], now, None);
    fitted.simulated_narrower = fitted.simulated.map(|_| 1.0);
    let of = |points: &[Point]| outlook(request, &known, points, now, fitted.simulated);
    let (proposed, along) = (of(&points), of(&frontier(&known, budget, request.count)));
    let resampled = fit.fit.interval_of(&|law| match law {
        Params::Loss(law) => target.value(law, known.flops_per_param_token),
        _ => f64::NAN,
    });
    let finding = Finding {
        resampled,
        request,
        known: &known,
        candidates: &found,
        points: &points,
        proposed: &proposed,
        fitted: &fitted,
        frontier: &along,
        convention: named,
    };
    Ok(Proposal {
        group: fit.group.clone(),
        target: *target,
        value: known.value(target),
        level: known.level,
        resampled,
        noise: known.noise,
        noise_from: known.noise_from,
        budget,
        flops: proposed.flops,
        flops_convention: convention,
        candidates: found.points.len(),
        tokens_per_param: ratios,
        runs: planned
            .runs
            .iter()
            .zip(&points)
            .map(|(run, point)| {
                proposed_run(run, point, now / known.deviation(target, std::slice::from_ref(point)))
            })
            .collect(),
        warnings: warnings::of(&finding),
        fitted,
        proposed,
        frontier: along,
        sweep,
    })
}

fn check(request: &Request<'_>) -> Result<(), ProposeError> {
    let bad = |option, found: String, allowed| Err(ProposeError::BadOption { option, found, allowed });
    if !(1..=MOST_RUNS).contains(&request.count) {
        return bad("runs", request.count.to_string(), "1 to 200 runs");
    }
    if !(request.budget.is_finite() && request.budget > 0.0) {
        return bad("budget", request.budget.to_string(), "FLOPs above 0, such as 1e21");
    }
    if request.repeats != 0 && !(20..=100_000).contains(&request.repeats) {
        return bad("check-repeats", request.repeats.to_string(), "20 to 100000 draws, or 0 for no check");
    }
    match request.tokens_per_param {
        Some([low, high]) if !(low > 0.0 && low < high && high.is_finite()) => {
            bad("tokens-per-param", format!("{low},{high}"), "two numbers above 0, the smaller first")
        }
        _ => Ok(()),
    }
}

/// The one law of approach 3 that is meant, with what it was fitted to.
fn law_of<'a>(request: &Request<'a>) -> Result<(&'a DocumentFit, &'a Inputs), ProposeError> {
    let document = request.document;
    let laws: Vec<&DocumentFit> = document.fits.iter().filter(|f| f.fit.approach == 3).collect();
    let wanted: Vec<&DocumentFit> = laws
        .iter()
        .copied()
        .filter(|f| request.group.is_none() || f.group.as_deref() == request.group)
        .collect();
    let inputs = |law: &DocumentFit| document.fitted().find(|(g, _)| *g == law.group.as_deref());
    match wanted.as_slice() {
        [law] => inputs(law).map(|(_, inputs)| (*law, inputs)).ok_or(ProposeError::NoLaw),
        _ if laws.is_empty() => Err(ProposeError::NoLaw),
        found => {
            let names: Vec<&str> = laws.iter().filter_map(|f| f.group.as_deref()).collect();
            let found = match request.group {
                Some(group) if found.is_empty() => format!("no group `{group}`"),
                _ => format!("{} groups", found.len()),
            };
            Err(ProposeError::Group { found, allowed: names.join(", ") })
        }
    }
}

/// The sweep file of the chosen candidates, the cheapest first. A run that was made already gets a seed of its own.
fn written(
    request: &Request<'_>,
    known: &Known,
    found: &Candidates,
    best: &[usize],
    convention: Convention,
) -> Result<String, ProposeError> {
    let mut places = best.to_vec();
    places.sort_by(|&p, &q| found.runs[p].flops.total_cmp(&found.runs[q].flops).then(p.cmp(&q)));
    let times = |place: usize| best.iter().filter(|&&p| p == place).count();
    places.dedup();
    let entry = |&place: &usize| {
        let run = &found.runs[place];
        let params = counted(run, known.params);
        let made = |seed: &u64| {
            let same = |p: &&Point| p.params == params && p.tokens == run.tokens as f64;
            known.points.iter().filter(same).any(|p| p.seed == *seed)
        };
        let seeds = (0..).filter(|seed| !made(seed)).take(times(place)).collect();
        Entry { size: run.size.clone(), tokens: found.nominal[place], flops: run.flops, seeds }
    };
    let entries: Vec<Entry> = places.iter().map(entry).collect();
    let used = |name: &String| entries.iter().any(|e| e.size == *name);
    let shapes: Vec<_> = found.shapes.iter().filter(|(name, _)| used(name)).cloned().collect();
    let total: f64 = best.iter().map(|&place| found.runs[place].flops).sum();
    let training = match request.template.own {
        true => format!("# Everything but the runs is that of {}.", request.template.path().display()),
        false => "# Training is usual for the family, and [data] is a name only: look at both before paying."
            .into(),
    };
    let head = format!(
        "# The next {} for {}, chosen by `isoflop propose` on a fit of {}.\n#\n\
         # Cost: {} FLOPs by {convention} in all. `isoflop plan` shows memory and time.\n{training}\n",
        if best.len() == 1 { "run".into() } else { format!("{} runs", best.len()) },
        request.target,
        request.document.inputs.source.file,
        format_flops(total),
    );
    request.template.list(&head, &shapes, &entries, convention.name())
}

/// The plan of the written sweep: what `isoflop plan` will show.
fn planned(template: &Template, sweep: &str) -> Result<Plan, ProposeError> {
    let read = file::parse(template.path(), sweep).map_err(ReadError::from)?;
    plan(&read).map_err(|source| ProposeError::Plan { path: template.path().to_owned(), source })
}

fn outlook(
    request: &Request<'_>,
    known: &Known,
    points: &[Point],
    now: f64,
    before: Option<Simulated>,
) -> Outlook {
    let deviation = known.deviation(&request.target, points);
    let simulated = match request.repeats {
        0 => None,
        repeats => known.simulate(&request.target, points, repeats),
    };
    let width = |s: &Simulated| (s.interval[1] / s.interval[0]).ln();
    Outlook {
        runs: points.len(),
        flops: points.iter().map(|p| p.flops).sum(),
        predicted: known.interval(&request.target, deviation),
        predicted_narrower: now / deviation,
        simulated,
        simulated_narrower: before.zip(simulated).map(|(b, s)| width(&b) / width(&s)),
    }
}

fn proposed_run(run: &PlannedRun, point: &Point, alone: f64) -> ProposedRun {
    let m = &run.model;
    ProposedRun {
        id: run.id.clone(),
        size: run.size.clone(),
        seed: run.seed,
        n_layers: m.n_layers,
        n_heads: m.n_heads,
        d_head: m.d_head,
        d_model: m.d_model,
        d_ff: m.d_ff,
        params: point.params,
        tokens: run.tokens,
        flops: run.flops,
        steps: run.steps,
        batch_tokens: run.batch_tokens,
        alone,
    }
}
