//! What to know before paying for a proposal.

use super::candidates::Candidates;
use super::proposal::{Outlook, Request};
use crate::fit::design::{Known, NoiseFrom};
use crate::fit::simulate::Point;
use crate::fit::{format_count, format_flops};
use isoflop_compiler::count::Convention;

/// Compute over that of the fitted runs above which a law is a guess.
const FAR: f64 = 10.0;
/// Factor by which a simulated and a predicted gain may differ.
const APART: f64 = 1.25;
/// How many times wider than by the covariance an interval of resamples may be.
const WIDER: f64 = 2.0;
/// Residuals this many times the noise of repeats are not noise.
const MISFIT: f64 = 1.5;

/// A proposal with what it was chosen from.
pub(super) struct Finding<'a> {
    pub request: &'a Request<'a>,
    pub known: &'a Known,
    pub candidates: &'a Candidates,
    pub points: &'a [Point],
    pub fitted: &'a Outlook,
    pub proposed: &'a Outlook,
    pub frontier: &'a Outlook,
    /// The target's interval by the fit's resamples.
    pub resampled: Option<[f64; 2]>,
    /// Of the fitted runs; none where they have several or one that is not known.
    pub convention: Option<Convention>,
}

/// All of them, each a sentence.
pub(super) fn of(found: &Finding<'_>) -> Vec<String> {
    let each = [beyond(found), target(found), corners(found), check(found), gain(found)];
    let more = [resampled(found), misfit(found), conventions(found), template(found)];
    each.into_iter().chain(more).flatten().collect()
}

fn beyond(found: &Finding<'_>) -> Option<String> {
    let most = found.known.ranges.flops[1];
    let far: Vec<f64> = found.points.iter().map(|p| p.flops / most).filter(|f| *f > FAR).collect();
    let furthest = far.iter().copied().fold(0.0, f64::max);
    (!far.is_empty()).then(|| {
        format!(
            "{} of {} proposed runs have more than 10 times the compute of the largest fitted run, the largest {} times: \
             what they are expected to tell holds only if the law does",
            far.len(),
            found.points.len(),
            format_count(furthest)
        )
    })
}

fn target(found: &Finding<'_>) -> Option<String> {
    let most = found.points.iter().map(|p| p.flops).fold(found.known.ranges.flops[1], f64::max);
    let times = found.request.target.flops / most;
    (times > FAR).then(|| {
        format!(
            "{} FLOPs are {} times the largest run, the proposed ones included: the interval holds only if the law does",
            format_flops(found.request.target.flops),
            format_count(times)
        )
    })
}

/// The limits of what was searched that a run is at.
fn limits(found: &Finding<'_>, point: &Point) -> Vec<&'static str> {
    /// One step of token counts, and a little.
    const STEP: f64 = 1.16;
    let Candidates { points, tokens_per_param: [low, high], .. } = found.candidates;
    let [least, most] =
        points.iter().fold([f64::INFINITY, 0.0f64], |m, p| [m[0].min(p.params), m[1].max(p.params)]);
    let ranges = &found.known.ranges;
    let ratio = point.tokens / point.params;
    // A larger size might be no candidate for its price alone.
    let larger = found.known.flops_per_param_token * (1.5 * most).powi(2) * low;
    let mut at = Vec::new();
    if point.params <= least {
        at.push("the smallest size");
    }
    if point.params >= most && larger <= found.request.budget {
        at.push("the largest size");
    }
    if point.tokens / STEP < ranges.tokens[0] {
        at.push("the fewest tokens");
    }
    if point.flops / STEP < ranges.flops[0] {
        at.push("the least compute");
    }
    if ratio * STEP > *high {
        at.push("the most tokens for a parameter");
    }
    if ratio / STEP < *low {
        at.push("the fewest tokens for a parameter");
    }
    at
}

fn corners(found: &Finding<'_>) -> Option<String> {
    let at: Vec<Vec<&str>> = found.points.iter().map(|p| limits(found, p)).filter(|l| l.len() > 1).collect();
    let first = at.first()?;
    let [low, high] = found.candidates.tokens_per_param.map(format_count);
    Some(format!(
        "{} of {} proposed runs at a corner of what was searched, which is the range of the fitted runs ({}): runs outside would \
         tell more if the law holds there; --tokens-per-param widens {low} to {high}",
        at.len(),
        found.points.len(),
        first.join(", ")
    ))
}

fn check(found: &Finding<'_>) -> Option<String> {
    let drawn = found.request.repeats;
    if drawn == 0 {
        return Some("the gain was not checked by simulation (--check-repeats 0)".into());
    }
    let (Some(before), Some(after)) = (found.fitted.simulated, found.proposed.simulated) else {
        return Some(format!(
            "fewer than 20 of {drawn} simulated draws gave a law: the fitted runs hardly determine one, and the predicted gain \
             means little"
        ));
    };
    let (predicted, simulated) = (found.proposed.predicted_narrower, found.proposed.simulated_narrower?);
    let apart = simulated / predicted;
    if !(1.0 / APART..=APART).contains(&apart) {
        return Some(format!(
            "simulated draws make the interval {simulated:.1} times narrower, the covariance predicts {predicted:.1} times: \
             believe the simulation"
        ));
    }
    let drawn = after.drawn;
    let lost = drawn.saturating_sub(before.fitted.min(after.fitted));
    (lost * 10 > drawn).then(|| {
        format!(
            "{lost} of {drawn} simulated draws gave no law that is determined; the spread is of the others"
        )
    })
}

fn gain(found: &Finding<'_>) -> Option<String> {
    let (proposed, along) = (found.proposed.simulated_narrower?, found.frontier.simulated_narrower?);
    (proposed < along).then(|| {
        format!(
            "in simulation, runs equally spaced along N*(C) do as well: {along:.1} times narrower, the proposed {proposed:.1}"
        )
    })
}

fn resampled(found: &Finding<'_>) -> Option<String> {
    let width = |ends: [f64; 2]| (ends[1] / ends[0]).ln();
    let times = width(found.resampled?) / width(found.fitted.predicted);
    (times > WIDER).then(|| {
        format!(
            "the fit's resamples leave an interval {times:.1} times wider than its covariance, on which this rests: believe which \
             runs are proposed rather than how narrow the interval becomes"
        )
    })
}

fn misfit(found: &Finding<'_>) -> Option<String> {
    let (residual, noise) = (found.known.residual, found.known.noise.deviation);
    (found.known.noise_from == NoiseFrom::Repeats && residual > MISFIT * noise).then(|| {
        format!(
            "residuals of the law ({:.2} %) are larger than the noise of repeats ({:.2} %): the law misses something that \
             further runs will not cure",
            100.0 * residual,
            100.0 * noise
        )
    })
}

fn conventions(found: &Finding<'_>) -> Option<String> {
    found.convention.is_none().then(|| {
        "the fitted runs name no FLOP convention, or several: the proposed runs are counted by 6nd"
            .to_string()
    })
}

fn template(found: &Finding<'_>) -> Option<String> {
    (!found.request.template.own).then(|| {
        "[train] and [data] of the sweep are usual values for the family: give yours with --base SWEEP.toml".into()
    })
}
