//! What a fit may be asked to do differently.

use super::downstream::DownstreamOptions;
use super::error::FitError;
use serde::{Deserialize, Serialize};

/// Which final loss is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossColumn {
    Validation,
    Train,
}

/// Which parameters N counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamCount {
    Total,
    NonEmbedding,
}

/// What approach 3 minimises over the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Sum of Huber terms of the residual of the log loss. Hoffmann et al. 2022, eq. 3.
    HuberLog,
    /// Sum of squared residuals of the log loss.
    MseLog,
    /// Sum of Huber terms of the residual of the loss, in nats per token.
    HuberLinear,
    /// Sum of squared residuals of the loss.
    MseLinear,
}

impl Objective {
    pub const ALL: [Objective; 4] =
        [Objective::HuberLog, Objective::MseLog, Objective::HuberLinear, Objective::MseLinear];

    /// The word in fit.json.
    pub fn name(self) -> &'static str {
        match self {
            Objective::HuberLog => "huber-log",
            Objective::MseLog => "mse-log",
            Objective::HuberLinear => "huber-linear",
            Objective::MseLinear => "mse-linear",
        }
    }

    pub(crate) fn is_linear(self) -> bool {
        matches!(self, Objective::HuberLinear | Objective::MseLinear)
    }

    pub(crate) fn is_huber(self) -> bool {
        matches!(self, Objective::HuberLog | Objective::HuberLinear)
    }
}

/// The law that approach 3 fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LawForm {
    /// L = E + A / N^alpha + B / D^beta. Hoffmann et al. 2022, eq. 2.
    Chinchilla,
    /// The same with E given, in nats per token.
    FixedE(f64),
    /// The same with alpha = beta.
    EqualExponents,
    /// L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D. Kaplan et al. 2020, eq. 1.5.
    Kaplan,
    /// L = E + A / C^alpha, through the best run of each isoFLOP budget, or through all runs where there are no budgets.
    Compute,
}

impl LawForm {
    /// The word in fit.json.
    pub fn name(self) -> &'static str {
        match self {
            LawForm::Chinchilla => "chinchilla",
            LawForm::FixedE(_) => "fixed-e",
            LawForm::EqualExponents => "equal-exponents",
            LawForm::Kaplan => "kaplan",
            LawForm::Compute => "compute",
        }
    }
}

/// Where approach 3 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Starts {
    /// The local minima of the error projected on (alpha, beta).
    Projection,
    /// These, and the 4,500 starts of Hoffmann et al. 2022 as a check; only for [`LawForm::Chinchilla`].
    Grid,
}

/// How intervals are read off the resamples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Percentiles of the resampled estimates.
    Percentile,
    /// Percentiles moved for bias and skewness. Efron 1987.
    Bca,
}

/// How approach 2 finds the minimum of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimumMethod {
    /// A parabola in ln N through all runs of the budget. Hoffmann et al. 2022.
    Parabola,
    /// Akima's interpolation of the log loss over ln N. Porian et al. 2024.
    Akima,
}

/// Options of [`fit_runs`](super::fit_runs).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    /// Any of 1, 2, 3.
    pub approaches: Vec<u8>,
    /// Resamples per approach; 0 for no intervals.
    pub bootstrap: usize,
    /// Share of resamples inside an interval.
    pub level: f64,
    /// Seed of the resamples.
    pub seed: u64,
    pub loss: LossColumn,
    pub params: ParamCount,
    /// Compute in FLOPs at which the optimum is wanted.
    pub targets: Vec<f64>,
    /// What approach 3 minimises.
    pub objective: Objective,
    /// Width of the quadratic part of the Huber terms, in log loss or in nats per token.
    pub delta: f64,
    /// The law of approach 3.
    pub form: LawForm,
    /// Other laws to fit beside it.
    pub variants: Vec<LawForm>,
    pub starts: Starts,
    pub intervals: IntervalMethod,
    /// Whether approach 3 resamples the runs of each isoFLOP budget by themselves.
    pub stratified: bool,
    /// Whether to find profile intervals of alpha, beta and a beside the resampled ones.
    pub profile: bool,
    pub minimum: MinimumMethod,
    /// Whether runs count by the noise that repeats (equal N and D) show at their compute.
    pub seed_weights: bool,
    /// How accuracies are fitted, where a table has them.
    #[serde(default, skip_serializing_if = "DownstreamOptions::is_default")]
    pub downstream: DownstreamOptions,
}

/// Width of the quadratic part of the Huber loss, in log loss. Hoffmann et al. 2022.
pub const DELTA: f64 = 1e-3;
/// More resamples than this take memory and time and change no interval that matters.
const MOST_RESAMPLES: usize = 100_000;

impl Default for FitOptions {
    /// All approaches, the published objective, 1,000 resamples, 90 % BCa intervals, validation loss, all parameters.
    fn default() -> Self {
        FitOptions {
            approaches: vec![1, 2, 3],
            bootstrap: 1000,
            level: 0.9,
            seed: 0,
            loss: LossColumn::Validation,
            params: ParamCount::Total,
            targets: Vec::new(),
            objective: Objective::HuberLog,
            delta: DELTA,
            form: LawForm::Chinchilla,
            variants: Vec::new(),
            starts: Starts::Projection,
            intervals: IntervalMethod::Bca,
            stratified: false,
            profile: false,
            minimum: MinimumMethod::Parabola,
            seed_weights: false,
            downstream: DownstreamOptions::default(),
        }
    }
}

impl FitOptions {
    pub(crate) fn check(&self) -> Result<(), FitError> {
        let bad = |option, found: String, allowed| Err(FitError::BadOption { option, found, allowed });
        if !(self.level > 0.0 && self.level < 1.0) {
            return bad("level", self.level.to_string(), "a share between 0 and 1, such as 0.9");
        }
        if self.approaches.is_empty() || self.approaches.iter().any(|k| !(1..=3).contains(k)) {
            return bad("approaches", format!("{:?}", self.approaches), "one or more of 1, 2, 3");
        }
        if self.bootstrap > MOST_RESAMPLES {
            return bad("bootstrap", self.bootstrap.to_string(), "0 to 100000 resamples");
        }
        if let Some(target) = self.targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return bad("targets", target.to_string(), "FLOPs above 0");
        }
        if !(self.delta.is_finite() && self.delta > 0.0) {
            return bad("delta", self.delta.to_string(), "a width above 0, such as 0.001");
        }
        self.downstream.check()?;
        for form in self.variants.iter().chain([&self.form]) {
            match form {
                LawForm::FixedE(e) if !(e.is_finite() && *e >= 0.0) => {
                    return bad("fix_e", e.to_string(), "a loss in nats per token from 0");
                }
                _ => {}
            }
        }
        if self.form == LawForm::Compute {
            return bad("form", "compute".into(), "a law of N and D; `also` fits this one beside it");
        }
        Ok(())
    }
}
