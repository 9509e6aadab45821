//! What a fit yields: the typed form of fit.json.

use super::intervals::{Resampled, Spread};
use super::options::IntervalMethod;
pub use super::params::{ComputeParams, Exponents, KaplanParams, LossParams, Params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a fit can be trusted as an optimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FitStatus {
    /// The gradient vanished inside the bounds.
    Converged,
    /// A parameter ended on its bound: the data do not determine it.
    AtBound,
    /// The best start had a zero coefficient or an exponent at the end of the searched range, but the fit left it.
    BoundaryStart,
    /// The minimiser could not reduce the gradient enough.
    Abnormal,
}

impl FitStatus {
    /// Whether the law may be used: no parameter on its bound, and the search came to its end.
    pub fn is_sound(self) -> bool {
        matches!(self, FitStatus::Converged | FitStatus::BoundaryStart)
    }
}

/// How intervals were made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub method: IntervalMethod,
    /// Whether the runs of each budget were resampled by themselves.
    pub stratified: bool,
    /// Share of resamples inside an interval.
    pub level: f64,
    pub seed: u64,
    /// Resamples drawn.
    pub resamples: usize,
    /// Resamples that gave an estimate.
    pub used: usize,
    /// Whether, of very many runs, no resample was fitted anew: each is a Newton step from the fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub linear: bool,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// What a fitted law says is best at one compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Optimum {
    /// FLOPs.
    pub flops: f64,
    pub params: Estimate,
    pub tokens: Estimate,
    /// D* / N*.
    pub tokens_per_param: Estimate,
    /// Nats per token; only approach 3 predicts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Estimate>,
}

/// Whether the minimum of one budget's parabola can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MinimumFlag {
    /// Between the smallest and the largest size, with clear curvature. Only these enter the power laws.
    Interior,
    /// Outside the sizes tried, or the best run is the smallest or the largest.
    Edge,
    /// The parabola opens downwards, or its curvature is within two standard errors of none.
    Curvature,
}

/// The parabola of one isoFLOP budget: loss = loss_at_centre + slope x + curvature x^2 with x = ln(N / centre).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IsoflopMinimum {
    /// FLOPs.
    pub budget: f64,
    pub flag: MinimumFlag,
    pub runs: usize,
    /// Parameters at the minimum, tokens at the minimum and the loss there; absent when the curvature is not positive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Parameters at which x = 0.
    pub centre: f64,
    pub loss_at_centre: f64,
    pub slope: f64,
    pub curvature: f64,
    /// Standard error of the curvature; absent when as many runs as coefficients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curvature_error: Option<f64>,
    /// Smallest and largest parameter count tried.
    pub tried: [f64; 2],
}

impl IsoflopMinimum {
    /// The parabola's loss in nats per token at a parameter count.
    pub fn loss_at(&self, params: f64) -> f64 {
        let x = (params / self.centre).ln();
        self.loss_at_centre + self.slope * x + self.curvature * x * x
    }
}

/// A point of the lower envelope of the training curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvelopePoint {
    /// FLOPs.
    pub flops: f64,
    /// The run that has the lowest loss after this much compute.
    pub run: String,
    pub params: f64,
    pub tokens: f64,
    pub loss: f64,
    /// Whether both smaller and larger models reach this compute; only these enter the power laws.
    pub interior: bool,
}

/// One approach's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// 1, 2 or 3, numbered as by Hoffmann et al. 2022.
    pub approach: u8,
    /// `envelope`, `parabola`, `akima`, or the objective of approach 3, such as `huber-log`.
    pub form: String,
    /// The law of approach 3, such as `chinchilla`; `power` of the others.
    pub law: String,
    pub status: FitStatus,
    /// Runs (approaches 2 and 3) or training curves (approach 1) the fit rests on.
    pub n: usize,
    /// Approach 3: sum of Huber terms of the log residuals. Others: sum of squared log residuals of the power law of N*.
    pub objective: f64,
    pub params: Params,
    pub exponents: Exponents,
    /// Intervals by name: a and b always, and the parameters' own names.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Approach 3: profile intervals of alpha, beta and a, where asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, [f64; 2]>,
    /// Approach 3: how the parameters vary together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariance: Option<Covariance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The law on a grid of compute from the least to ten times the most, and at every target; empty when a parameter is
    /// on its bound.
    pub optimum: Vec<Optimum>,
    /// Approach 2's parabolas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minima: Vec<IsoflopMinimum>,
    /// Approach 1's envelope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub envelope: Vec<EnvelopePoint>,
    /// Approaches 1 and 2 applied to losses of the fitted law of approach 3: what they would find if it were true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Bias>,
    /// Approach 3: the law of every resample, which holds the joint uncertainty; not in fit.json.
    #[serde(skip)]
    pub cloud: Cloud,
}

/// Covariance of the parameters of a law by the sandwich formula of M-estimators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Covariance {
    /// Scales as logarithms: `ln E`, `ln A`, `ln B`, `alpha`, `beta`, those that are estimated.
    pub names: Vec<String>,
    /// One row for each name.
    pub matrix: Vec<Vec<f64>>,
}

/// The laws of resamples, and of all runs but a few.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cloud {
    pub draws: Vec<Params>,
    /// For BCa intervals.
    pub jackknife: Vec<Params>,
}

/// How far an approach is from a law that is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bias {
    /// Exponent of N* found, less the law's.
    pub a: f64,
    /// N* found at the largest compute over the law's.
    pub params: f64,
    /// D* found at the largest compute over the law's.
    pub tokens: f64,
}

/// A law fitted beside approach 3's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The objective, such as `huber-log`.
    pub form: String,
    /// The law, such as `kaplan`.
    pub law: String,
    pub status: FitStatus,
    /// Runs fitted.
    pub n: usize,
    pub objective: f64,
    pub params: Params,
    /// Only laws of N and D have an optimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponents: Option<Exponents>,
    pub intervals: BTreeMap<String, [f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariance: Option<Covariance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
}

impl Fit {
    /// The interval of any quantity of approach 3's law from its resamples, by the method of `bootstrap`; none after
    /// reading fit.json, which does not hold them.
    pub fn interval_of(&self, value: &dyn Fn(&Params) -> f64) -> Option<[f64; 2]> {
        let bootstrap = self.bootstrap?;
        let Cloud { draws, jackknife } = self.cloud.clone();
        let resampled = Resampled { drawn: bootstrap.resamples, draws, jackknife, linear: bootstrap.linear };
        let spread = Spread {
            best: &self.params,
            resampled: &resampled,
            level: bootstrap.level,
            method: bootstrap.method,
        };
        spread.interval(value)
    }

    /// A parameter of the law by its name in fit.json.
    pub fn params_named(&self, name: &str) -> Option<f64> {
        self.params.named().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Loss in nats per token of `params` parameters after `tokens` tokens, with its interval; none of approaches that
    /// predict no loss.
    pub fn loss_at(&self, params: f64, tokens: f64) -> Option<Estimate> {
        let value = self.params.loss(params, tokens)?;
        let interval = self.interval_of(&|law| law.loss(params, tokens).unwrap_or(f64::NAN));
        Some(Estimate { value, interval })
    }

    /// N* and D* at a compute; `flops_per_param_token` as in [`Inputs`].
    pub fn optimum_at(&self, flops: f64, flops_per_param_token: f64) -> Option<(f64, f64)> {
        match self.params {
            Params::Power { n_coefficient, d_coefficient } => {
                let Exponents { a, b } = self.exponents;
                Some((n_coefficient * flops.powf(a), d_coefficient * flops.powf(b)))
            }
            law => law.optimum(flops, flops_per_param_token),
        }
    }

    /// The interval of the exponent a.
    pub fn a_interval(&self) -> Option<[f64; 2]> {
        self.intervals.get("a").copied()
    }
}

/// What a warning is about; the kebab-case name is its stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningCode {
    /// Runs that did not finish or have no loss were put aside.
    RunsLeftOut,
    /// FLOPs were counted by more than one convention.
    MixedConventions,
    /// Rows of a table have a status that is not known.
    UnknownStatus,
    /// A table has several rows of one run.
    RepeatedRuns,
    /// Losses of a table above any uniform guess.
    LossAboveUniform,
    /// A table's loss was read from one of several columns.
    ColumnChosen,
    /// A table is so long that fewer resamples were drawn, or none was fitted anew.
    FewerResamples,
    /// Fewer than five model sizes.
    FewModels,
    /// An approach that was asked for cannot be fitted.
    ApproachUnavailable,
    /// The best size of a budget is the smallest or largest tried.
    MinimumAtEdge,
    /// A budget's parabola is flat or opens downwards.
    WeakCurvature,
    /// A budget's sizes reach so far that a parabola is a biased model of the loss.
    WideGrid,
    /// A power law through two budgets has no residual to judge it by.
    FewBudgets,
    /// An approach-1 envelope made from runs whose learning rate decays.
    DecayingSchedule,
    /// An exponent with a wide interval, or a parameter on its bound, or no optimum.
    UnidentifiedExponents,
    /// Runs far from the law; with and without them.
    Outliers,
    /// Approaches whose intervals do not meet.
    ApproachesDisagree,
    /// A target beyond ten times the largest compute.
    Extrapolation,
    /// The largest budget, held out, is not predicted well.
    HeldOutError,
    /// Approach 1 or 2 would miss the law of approach 3 even without noise.
    ApproachBias,
    /// Small models are embeddings to a large part, which bends the law of all parameters.
    EmbeddingShare,
    /// Accuracies of a task cannot be fitted.
    DownstreamUnavailable,
    /// No run of a task is above chance by more than noise.
    AccuracyAtChance,
    /// Accuracies below the chance that was given.
    BelowChance,
    /// The steepness or the midpoint of a task's sigmoid is on its bound.
    UnidentifiedSigmoid,
    /// The ceiling or the floor of a task's sigmoid rests on no run.
    AsymptoteUnidentified,
    /// Accuracy of a task does not rise as its loss falls.
    NotMonotone,
    /// Accuracies are asked for at losses that no run reaches.
    LossBeyondData,
}

/// One thing a careful reviewer would point out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub code: WarningCode,
    /// A sentence in plain words that says what was found and what to do.
    pub message: String,
    /// The number it rests on.
    pub value: f64,
}

/// The largest budget predicted by approach 3 from the smaller ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Least and most FLOPs of the runs held out.
    pub flops: [f64; 2],
    /// Runs held out.
    pub n: usize,
    /// Mean of |predicted - measured| / measured.
    pub error: f64,
    /// The same when each run is predicted by the loss of its nearest smaller-budget run in (ln N, ln D).
    pub baseline_error: f64,
}

/// The spread of runs with equal N and D.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SeedNoise {
    /// Pooled standard deviation of the log loss, about the relative spread.
    pub deviation: f64,
    /// Sets of equal N and D with more than one run, and the runs in them.
    pub groups: usize,
    pub runs: usize,
    /// Exponent of the variance in compute; 0 where fewer than three groups.
    pub growth: f64,
}

/// A run that the fit did not use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub id: String,
    /// Its status, or that it has no loss.
    pub why: String,
}

/// What the fit was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Rows of runs.csv.
    pub runs: usize,
    /// Runs fitted.
    pub used: usize,
    pub left_out: Vec<LeftOut>,
    /// Training curves given.
    pub curves: usize,
    /// `validation` or `train`.
    pub loss: String,
    /// `total` or `non-embedding`.
    pub parameters: String,
    pub flops_conventions: Vec<String>,
    /// Median of C / (N D): 6 for the convention 6nd.
    pub flops_per_param_token: f64,
    /// Least and most FLOPs of the runs fitted.
    pub flops: [f64; 2],
    /// FLOPs at which the optimum was asked for.
    pub targets: Vec<f64>,
}

/// All approaches, side by side. Serialises to fit.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitReport {
    pub fits: Vec<Fit>,
    pub warnings: Vec<Warning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Approach 3 without the outliers, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_outliers: Option<Fit>,
    /// Other laws that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// What repeats (equal N and D) say about noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_noise: Option<SeedNoise>,
    pub inputs: Inputs,
}

impl FitReport {
    /// The fit of one approach.
    pub fn approach(&self, approach: u8) -> Option<&Fit> {
        self.fits.iter().find(|f| f.approach == approach)
    }

    /// The result to quote first: approach 3 where it has an optimum, else approach 2, else approach 1.
    pub fn headline(&self) -> Option<&Fit> {
        let sound = |f: &&Fit| f.status.is_sound();
        [3, 2, 1].iter().filter_map(|&k| self.approach(k)).find(sound).or(self.fits.first())
    }
}
