//! What a reader asks of approach 3 once it is fitted: where it misses, how well its exponents are known together, and
//! whether it predicts runs that it has not seen.

mod contour;

pub use contour::{Contour, LEVELS};

use super::options::{FitOptions, Starts};
use super::parametric::{self, Sample};
use super::records::RunRecord;
use super::result::{Estimate, Fit};
use super::{checks, noise};

/// Resamples for the intervals of held-out predictions; more would move no end that can be seen.
const RESAMPLES: usize = 500;

/// Runs times resamples that take a second or two, and the least resamples for percentiles of some use.
const MOST_TERMS: usize = 5_000_000;
const FEW_RESAMPLES: usize = 50;

/// How one fitted run lies to the law.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    pub run: String,
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    /// Measured and by the law, in nats per token.
    pub loss: f64,
    pub predicted: f64,
    /// ln(loss / predicted): above zero the run did worse than the law.
    pub residual: f64,
    /// Whether the fit's warnings count it as an outlier.
    pub outlier: bool,
}

/// One run of those that were held out and predicted from the others.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutRun {
    pub run: String,
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    /// Nats per token.
    pub measured: f64,
    /// By the law without the runs held out. The interval is the law's; a single run scatters about it.
    pub predicted: Estimate,
    /// The loss of the nearest of the other runs in (ln N, ln D), and which it is.
    pub baseline: f64,
    pub nearest: String,
}

/// Everything below, for one fit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diagnostics {
    pub residuals: Vec<Residual>,
    /// None where the law has not two free exponents, the data do not determine them, or the runs are very many.
    pub contour: Option<Contour>,
    /// Empty when too few runs remain without the largest.
    pub held_out: Vec<HeldOutRun>,
}

/// The standard normal quantile at a share between 0 and 1.
pub fn normal_quantile(share: f64) -> f64 {
    super::intervals::quantile(share)
}

/// The diagnostics of approach 3's fit to these runs by these options; nothing where the data do not determine it.
pub fn diagnose(runs: &[RunRecord], fit: &Fit, options: &FitOptions) -> Diagnostics {
    let sound = fit.status.is_sound();
    let Ok((mut samples, _)) = super::usable(runs, options) else { return Diagnostics::default() };
    if fit.approach != 3 || !sound {
        return Diagnostics::default();
    }
    if let Some(noise) = noise::of_repeats(&samples).filter(|_| options.seed_weights) {
        noise::weigh(&mut samples, &noise);
    }
    Diagnostics {
        residuals: residuals(runs, &samples, fit),
        contour: contour::contour(&samples, options),
        held_out: held_out(runs, &samples, options).unwrap_or_default(),
    }
}

fn residuals(runs: &[RunRecord], samples: &[Sample], fit: &Fit) -> Vec<Residual> {
    let far = checks::outliers(samples, &fit.params);
    let one = |(i, s): (usize, &Sample)| {
        let predicted = fit.params.loss(s.params, s.tokens)?;
        Some(Residual {
            run: runs[s.record].id.clone(),
            params: s.params,
            tokens: s.tokens,
            flops: s.flops,
            loss: s.loss,
            predicted,
            residual: (s.loss / predicted).ln(),
            outlier: far.contains(&i),
        })
    };
    samples.iter().enumerate().filter_map(one).collect()
}

/// The same runs held out as by the fit's own check, one by one and with intervals.
fn held_out(runs: &[RunRecord], samples: &[Sample], options: &FitOptions) -> Option<Vec<HeldOutRun>> {
    let (held, kept) = checks::top(samples);
    parametric::possible(&kept).ok()?;
    let options = FitOptions {
        starts: Starts::Projection,
        profile: false,
        bootstrap: options.bootstrap.min(RESAMPLES).min((MOST_TERMS / kept.len().max(1)).max(FEW_RESAMPLES)),
        ..options.clone()
    };
    let fit = parametric::fit(&kept, 6.0, &[], &options)?;
    let thin = |all: &[Sample], most: usize| -> Vec<Sample> {
        all.iter().step_by(all.len().div_ceil(most).max(1)).cloned().collect()
    };
    let near = thin(&kept, checks::NEIGHBOURS);
    let distance =
        |s: &Sample, t: &Sample| (s.params / t.params).ln().powi(2) + (s.tokens / t.tokens).ln().powi(2);
    let one = |run: &Sample| {
        let nearest = near.iter().min_by(|p, q| distance(p, run).total_cmp(&distance(q, run)))?;
        Some(HeldOutRun {
            run: runs[run.record].id.clone(),
            params: run.params,
            tokens: run.tokens,
            flops: run.flops,
            measured: run.loss,
            predicted: fit.loss_at(run.params, run.tokens)?,
            baseline: nearest.loss,
            nearest: runs[nearest.record].id.clone(),
        })
    };
    thin(&held, checks::ASKED).iter().map(one).collect()
}
