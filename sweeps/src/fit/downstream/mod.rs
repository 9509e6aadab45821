//! Accuracy of downstream tasks in two steps: the task's loss from N and D by approach 3, accuracy from that loss by a
//! sigmoid. Bhagia et al. 2024, "Establishing Task Scaling Laws via Compute-Efficient Model Ladders".
//!
//! Both steps are fitted again to every resample of runs, so intervals of a chained prediction hold the uncertainty of both.

mod options;
mod sigmoid;
mod warnings;

pub use options::DownstreamOptions;
pub use sigmoid::Sigmoid;
use sigmoid::{Sigmoids, Vec4};
pub(crate) use warnings::beyond_data;

use super::intervals::{Resampled, Spread, is_linear, resampled, shifts};
use super::law::{Measure, Solver};
use super::nearest::Nearest;
use super::options::{FitOptions, Starts};
use super::parametric::{self, Sample};
use super::records::RunRecord;
use super::result::{Bootstrap, Estimate, FitStatus, Params, Warning};
use super::{checks, grid, noise, usable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Losses at which the sigmoid is evaluated.
const CURVE: usize = 41;

/// The law of one task: loss from N and D, accuracy from loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downstream {
    /// The task; none without tasks or groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub status: FitStatus,
    /// Which of `floor`, `ceiling`, `k` and `midpoint` ended on a bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_bound: Vec<String>,
    pub sigmoid: Sigmoid,
    /// Which of `floor` and `ceiling` were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<String>,
    /// The first step: the law of approach 3 and how its search ended.
    pub loss_law: Params,
    pub loss_status: FitStatus,
    /// Runs with a loss and an accuracy, on which the sigmoid rests.
    pub n: usize,
    /// Runs with a loss only, on which the first step rests too.
    pub without_accuracy: usize,
    /// Least and greatest loss of the runs with an accuracy.
    pub losses: [f64; 2],
    /// Width of the quadratic part of the Huber terms, in accuracy; none for squares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Sum of Huber terms of the residual accuracy, or of its squares.
    pub objective: f64,
    /// Root of the mean square of the residual accuracy, given the measured loss.
    pub residual: f64,
    /// Intervals by name: `floor`, `ceiling`, `k`, `midpoint`.
    pub intervals: BTreeMap<String, [f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The sigmoid from the greatest fitted loss to the least of the runs and of `optimum`.
    pub curve: Vec<CurvePointAt>,
    /// Both steps at the compute-optimal N and D of the task's loss; empty when the first step has no optimum.
    pub optimum: Vec<DownstreamOptimum>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOutAccuracy>,
    /// The runs; not in fit.json.
    #[serde(skip)]
    pub points: Vec<DownstreamPoint>,
    #[serde(skip)]
    chains: Option<Resampled<Chain>>,
}

/// Accuracy at a loss of the task, by the second step alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePointAt {
    pub loss: f64,
    pub accuracy: Estimate,
}

/// What both steps say of the best model of one compute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DownstreamOptimum {
    /// FLOPs.
    pub flops: f64,
    pub params: f64,
    pub tokens: f64,
    /// The task's loss.
    pub loss: Estimate,
    /// A share from 0 to 1.
    pub accuracy: Estimate,
}

/// The largest runs predicted through both steps from the smaller ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutAccuracy {
    /// Least and most FLOPs of the runs held out.
    pub flops: [f64; 2],
    /// Runs held out that have an accuracy.
    pub n: usize,
    /// Mean of |predicted - measured| accuracy.
    pub error: f64,
    /// The same when each run is predicted by the accuracy of its nearest smaller run in (ln N, ln D).
    pub baseline_error: f64,
}

/// A run with an accuracy.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamPoint {
    pub run: String,
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    pub loss: f64,
    pub accuracy: f64,
}

/// Both steps, fitted to the same runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chain {
    law: Params,
    sigmoid: Sigmoid,
}

impl Chain {
    fn accuracy(&self, params: f64, tokens: f64) -> Option<f64> {
        Some(self.sigmoid.accuracy(self.law.loss(params, tokens)?))
    }
}

impl Downstream {
    /// Accuracy of a model of `params` parameters after `tokens` tokens, through both steps; none of a law without N and D.
    pub fn accuracy_at(&self, params: f64, tokens: f64) -> Option<Estimate> {
        let value = self.chain().accuracy(params, tokens)?;
        let interval = self.interval_of(&|chain| chain.accuracy(params, tokens).unwrap_or(f64::NAN));
        Some(Estimate { value, interval })
    }

    /// Accuracy at the optimum of a compute, every resample at its own. `flops_per_param_token` is 6 for 6ND.
    pub fn accuracy_at_optimum(&self, flops: f64, flops_per_param_token: f64) -> Option<Estimate> {
        let best = |chain: &Chain| {
            let (n, d) = chain.law.optimum(flops, flops_per_param_token)?;
            chain.accuracy(n, d)
        };
        let value = best(&self.chain())?;
        Some(Estimate { value, interval: self.interval_of(&|chain| best(chain).unwrap_or(f64::NAN)) })
    }

    fn chain(&self) -> Chain {
        Chain { law: self.loss_law, sigmoid: self.sigmoid }
    }

    fn interval_of(&self, value: &dyn Fn(&Chain) -> f64) -> Option<[f64; 2]> {
        let (Some(chains), Some(bootstrap)) = (&self.chains, self.bootstrap) else { return None };
        let best = self.chain();
        Spread { best: &best, resampled: chains, level: bootstrap.level, method: bootstrap.method }
            .interval(value)
    }
}

/// Runs as both steps see them; accuracies are beside them where they are known.
struct Runs {
    samples: Vec<Sample>,
    accuracy: Vec<Option<f64>>,
}

impl Runs {
    /// Places of the runs with an accuracy.
    fn known(&self) -> Vec<usize> {
        (0..self.samples.len()).filter(|&i| self.accuracy[i].is_some()).collect()
    }

    /// The second step's data.
    fn sigmoids(&self, known: &[usize], held: [Option<f64>; 2], delta: f64) -> Sigmoids {
        let losses: Vec<f64> = known.iter().map(|&i| self.samples[i].loss).collect();
        let accuracies: Vec<f64> = known.iter().filter_map(|&i| self.accuracy[i]).collect();
        Sigmoids::new(&losses, &accuracies, held, delta)
    }

    /// Whether both steps can be asked of these runs, or the reason why not.
    fn possible(&self, free: usize) -> Result<(), String> {
        parametric::possible(&self.samples)?;
        let known = self.known();
        let losses: BTreeSet<u64> = known.iter().map(|&i| self.samples[i].loss.to_bits()).collect();
        match losses.len() > free {
            true => Ok(()),
            false => Err(format!(
                "a sigmoid with {free} free parameters needs runs with {} different losses and an accuracy each, found {}",
                free + 1,
                losses.len()
            )),
        }
    }
}

/// Fits both steps to the runs of one task. `accuracies` belong to `runs`; `group` is the task's name.
///
/// # Errors
/// The warning that says why accuracy cannot be fitted.
pub(crate) fn fit(
    runs: &[RunRecord],
    accuracies: &[Option<f64>],
    options: &FitOptions,
    group: Option<&str>,
) -> Result<(Downstream, Vec<Warning>), Warning> {
    if !options.approaches.contains(&3) {
        return Err(warnings::unavailable(0, "its first step is approach 3, which was not asked for"));
    }
    let Ok((mut samples, _)) = usable(runs, options) else {
        return Err(warnings::unavailable(0, "no run has a loss"));
    };
    if let Some(noise) = noise::of_repeats(&samples).filter(|_| options.seed_weights) {
        noise::weigh(&mut samples, &noise);
    }
    let accuracy = samples.iter().map(|s| accuracies.get(s.record).copied().flatten()).collect();
    let all = Runs { samples, accuracy };
    let held = [options.downstream.chance_of(group), options.downstream.ceiling];
    let free = 2 + held.iter().filter(|h| h.is_none()).count();
    let known = all.known();
    all.possible(free).map_err(|why| warnings::unavailable(known.len(), &why))?;
    let delta = options.downstream.delta(options.objective);
    let sigmoids = all.sigmoids(&known, held, delta);

    let points = parametric::points(&all.samples);
    let weights = parametric::weights(&all.samples);
    let solver = Solver::new(&points, options.form, Measure::from(options));
    let no_start = || warnings::unavailable(known.len(), "no start led to a fit");
    let of_known = |all: &[f64]| -> Vec<f64> { known.iter().map(|&i| all[i]).collect() };
    let law = solver.solve(&weights, Starts::Projection).ok_or_else(no_start)?;
    let found = sigmoids.solve(&of_known(&weights)).ok_or_else(no_start)?;
    let strata = parametric::strata(&all.samples, options.stratified);
    // One draw of runs for both steps: what a lucky run does to the loss it also does to the accuracy.
    let again = |counts: &[f64]| {
        let both: Vec<f64> = counts.iter().zip(&weights).map(|(c, w)| c * w).collect();
        let law = solver.law(&solver.again(&both, &law.theta)?);
        Some(Chain { law, sigmoid: sigmoids.again(&of_known(&both), &found)? })
    };
    let linear = is_linear(weights.len()).then(|| {
        Some((solver.linear(&weights, &law.theta)?, sigmoids.inverse(&of_known(&weights), &found)?))
    });
    let chains = match linear.flatten() {
        Some((linear, inverse)) => {
            let mut place = vec![None; weights.len()];
            known.iter().enumerate().for_each(|(k, &i)| place[i] = Some(k));
            // The slopes of both steps, law first.
            let slope = |i: usize| -> [f64; 9] {
                let of_law = linear.slope(i);
                let own = place[i].map_or(Vec4::zeros(), |k| sigmoids.slope(weights[i], &found, k));
                std::array::from_fn(|j| if j < 5 { of_law[j] } else { own[j - 5] })
            };
            shifts(options, &strata, slope).map(|s: [f64; 9]| Chain {
                law: solver.law(&linear.moved(&[s[0], s[1], s[2], s[3], s[4]])),
                sigmoid: sigmoids.moved(&found, &inverse, &Vec4::from_row_slice(&s[5..])),
            })
        }
        None => resampled(options, weights.len(), &strata, again),
    };

    let flops = all.samples.iter().map(|s| s.flops);
    let flops = flops.fold([f64::INFINITY, 0.0f64], |m, c| [m[0].min(c), m[1].max(c)]);
    let ratios = all.samples.iter().map(|s| s.flops / (s.params * s.tokens)).collect();
    let k = checks::median(ratios);
    let of_run = |&i: &usize| {
        let s = &all.samples[i];
        let (run, accuracy) = (runs[s.record].id.clone(), all.accuracy[i]?);
        let (params, tokens, flops, loss) = (s.params, s.tokens, s.flops, s.loss);
        Some(DownstreamPoint { run, params, tokens, flops, loss, accuracy })
    };
    let points: Vec<DownstreamPoint> = known.iter().filter_map(of_run).collect();
    let squares: f64 = points.iter().map(|p| (found.sigmoid.accuracy(p.loss) - p.accuracy).powi(2)).sum();
    let losses = points.iter().fold([f64::INFINITY, 0.0f64], |m, p| [m[0].min(p.loss), m[1].max(p.loss)]);
    let bootstrap = (chains.drawn > 0).then_some(Bootstrap {
        method: options.intervals,
        stratified: options.stratified,
        level: options.level,
        seed: options.seed,
        resamples: chains.drawn,
        used: chains.draws.len(),
        linear: chains.linear,
    });
    let names = ["floor", "ceiling"].into_iter().zip(held);
    let mut out = Downstream {
        group: group.map(str::to_string),
        status: found.status,
        at_bound: found.at_bound.iter().map(|n| n.to_string()).collect(),
        sigmoid: found.sigmoid,
        fixed: names.filter(|(_, h)| h.is_some()).map(|(n, _)| n.to_string()).collect(),
        loss_law: law.law,
        loss_status: law.status,
        n: known.len(),
        without_accuracy: all.samples.len() - known.len(),
        losses,
        delta: Some(delta).filter(|d| d.is_finite()),
        objective: found.objective,
        residual: (squares / points.len() as f64).sqrt(),
        intervals: BTreeMap::new(),
        bootstrap,
        curve: Vec::new(),
        optimum: Vec::new(),
        held_out: held_out(&all, held, delta, options),
        points,
        chains: Some(chains),
    };
    for (i, (name, _)) in found.sigmoid.named().into_iter().enumerate() {
        let fixed = out.fixed.iter().any(|f| f == name);
        let ends = out.interval_of(&|chain| chain.sigmoid.named()[i].1).filter(|_| !fixed);
        out.intervals.extend(ends.map(|ends| (name.to_string(), ends)));
    }
    if law.status.is_sound() {
        let at = |&flops: &f64| out.optimum_at(flops, k);
        out.optimum = grid(flops, &options.targets).iter().filter_map(at).collect();
    }
    out.curve = out.curve();
    let sizes = out.points.iter().map(|p| p.params.to_bits()).collect::<BTreeSet<_>>().len();
    let all_sizes = all.samples.iter().map(|s| s.params.to_bits()).collect::<BTreeSet<_>>().len();
    let warnings = warnings::all(&out, &options.targets, [sizes, all_sizes]);
    Ok((out, warnings))
}

impl Downstream {
    fn optimum_at(&self, flops: f64, k: f64) -> Option<DownstreamOptimum> {
        let (params, tokens) = self.loss_law.optimum(flops, k)?;
        let loss = |law: &Params| law.optimum(flops, k).and_then(|(n, d)| law.loss(n, d));
        let interval = self.interval_of(&|chain| loss(&chain.law).unwrap_or(f64::NAN));
        Some(DownstreamOptimum {
            flops,
            params,
            tokens,
            loss: Estimate { value: loss(&self.loss_law)?, interval },
            accuracy: self.accuracy_at_optimum(flops, k)?,
        })
    }

    fn curve(&self) -> Vec<CurvePointAt> {
        let beyond = self.optimum.iter().map(|o| o.loss.value).fold(self.losses[0], f64::min);
        let [low, high] = [beyond, self.losses[1]];
        let at = |i: usize| {
            let loss = high + (low - high) * i as f64 / (CURVE - 1) as f64;
            let interval = self.interval_of(&|chain| chain.sigmoid.accuracy(loss));
            CurvePointAt { loss, accuracy: Estimate { value: self.sigmoid.accuracy(loss), interval } }
        };
        (0..CURVE).map(at).collect()
    }
}

/// Both steps fitted without the largest runs, as approach 3 holds them out, and asked for their accuracies.
fn held_out(
    all: &Runs,
    fixed: [Option<f64>; 2],
    delta: f64,
    options: &FitOptions,
) -> Option<HeldOutAccuracy> {
    let (held, kept) = checks::top_places(&all.samples);
    let pick = |places: &[usize]| Runs {
        samples: places.iter().map(|&i| all.samples[i].clone()).collect(),
        accuracy: places.iter().map(|&i| all.accuracy[i]).collect(),
    };
    let (held, kept) = (pick(&held), pick(&kept));
    let free = 2 + fixed.iter().filter(|h| h.is_none()).count();
    kept.possible(free).ok()?;
    let options = FitOptions { starts: Starts::Projection, ..options.clone() };
    let law = parametric::solve(&kept.samples, &options)?.law;
    let known = kept.known();
    let weights = parametric::weights(&kept.samples);
    let weights: Vec<f64> = known.iter().map(|&i| weights[i]).collect();
    let sigmoid = kept.sigmoids(&known, fixed, delta).solve(&weights)?.sigmoid;
    let chain = Chain { law, sigmoid };
    let of = |i: usize| {
        let s = &kept.samples[i];
        Some((s.params, s.tokens, kept.accuracy[i]?))
    };
    let nearest = Nearest::new((0..kept.samples.len()).filter_map(of));
    let asked = held.known();
    let every = asked.len().div_ceil(checks::ASKED).max(1);
    let (mut error, mut baseline_error, mut n) = (0.0, 0.0, 0.0);
    let mut flops = [f64::INFINITY, 0.0f64];
    for &i in &asked {
        flops = [flops[0].min(held.samples[i].flops), flops[1].max(held.samples[i].flops)];
    }
    for &i in asked.iter().step_by(every) {
        let (s, measured) = (&held.samples[i], held.accuracy[i]?);
        error += (chain.accuracy(s.params, s.tokens)? - measured).abs();
        baseline_error += (nearest.loss(s.params, s.tokens)? - measured).abs();
        n += 1.0;
    }
    (n > 0.0).then(|| HeldOutAccuracy {
        flops,
        n: asked.len(),
        error: error / n,
        baseline_error: baseline_error / n,
    })
}
