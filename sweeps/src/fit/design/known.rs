//! A fitted law as designs see it: covariance, noise of a run, ranges of the runs, and what further runs leave of it.

use super::error::DesignError;
use super::exchange::{Candidate, Search};
use super::noise::{NoiseFrom, inflation, of_residuals, of_seeds};
use super::target::{Target, slopes};
use crate::fit::intervals::quantile;
use crate::fit::law::{EXPONENT_MAX, EXPONENT_MIN, Mat5, NEGLIGIBLE, Vec5};
use crate::fit::options::{FitOptions, ParamCount};
use crate::fit::parametric::{Sample, residuals};
use crate::fit::records::RunRecord;
use crate::fit::result::{Fit, FitStatus, Inputs};
use crate::fit::simulate::{Noise, Point};
use crate::fit::{LossParams, Params, usable};

/// What is known before the next runs.
#[derive(Debug, Clone)]
pub struct Known {
    pub law: LossParams,
    /// C / (N D): 6 for the convention 6nd.
    pub flops_per_param_token: f64,
    /// Which parameters N counts.
    pub params: ParamCount,
    /// Of a run about the law.
    pub noise: Noise,
    pub noise_from: NoiseFrom,
    /// Robust deviation of the log residuals.
    pub residual: f64,
    /// Share of an interval.
    pub level: f64,
    pub ranges: Ranges,
    /// The fitted runs.
    pub points: Vec<Point>,
    pub(super) options: FitOptions,
    frame: Frame,
    /// Inverse covariance of theta at the fitted law and noise: the sum of what each run adds. The sandwich in fit.json is no
    /// base for a design: of some twenty runs it is often two times too narrow, and a further run is then worth too little.
    precision: Mat5,
}

/// Least and most of the fitted runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranges {
    pub params: [f64; 2],
    pub tokens: [f64; 2],
    pub tokens_per_param: [f64; 2],
    /// FLOPs.
    pub flops: [f64; 2],
}

/// The coordinates of theta: ln A and ln B are those at the mean ln N and ln D of the runs, and not all entries are
/// estimated.
#[derive(Debug, Clone, Copy)]
struct Frame {
    centre: [f64; 2],
    fixed_e: bool,
    /// alpha = beta, of which the entry of beta stands for both.
    tied: bool,
}

impl Frame {
    /// 1 for the entries that are not estimated.
    fn held(&self) -> Mat5 {
        let held = [self.fixed_e, false, false, self.tied, false];
        Mat5::from_diagonal(&Vec5::from_iterator(held.map(|h| f64::from(u8::from(h)))))
    }

    /// Derivatives in theta as those in the estimated entries.
    fn estimated(&self, mut slopes: Vec5) -> Vec5 {
        if self.fixed_e {
            slopes[0] = 0.0;
        }
        if self.tied {
            slopes[4] += slopes[3];
            slopes[3] = 0.0;
        }
        slopes
    }
}

impl Known {
    /// What the fit of these runs, of approach 3 with `inputs`, knows. `runs` are those that were fitted; others among them
    /// are left out as by the fit.
    ///
    /// # Errors
    /// A law of another form or that the data do not determine, other runs than those fitted, or no noise.
    pub fn of(
        fit: &Fit,
        inputs: &Inputs,
        options: &FitOptions,
        runs: &[RunRecord],
    ) -> Result<Known, DesignError> {
        let Params::Loss(law) = fit.params else {
            return Err(DesignError::OtherLaw { law: fit.law.clone() });
        };
        let (mut samples, _) = usable(runs, options)?;
        if samples.len() != fit.n {
            return Err(DesignError::OtherRuns { fitted: fit.n, found: samples.len() });
        }
        let undetermined = |what: String| DesignError::Undetermined { what };
        if !fit.status.is_sound() {
            return Err(undetermined(weak_place(&law, fit.status, &samples)));
        }
        let covariance = fit.covariance.as_ref();
        let covariance = covariance
            .ok_or_else(|| undetermined("the fit has no covariance, as with too few runs".into()))?;
        let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
        let frame = Frame {
            centre: [mean(&|s| s.params.ln()), mean(&|s| s.tokens.ln())],
            fixed_e: !covariance.names.iter().any(|name| name == "ln E"),
            tied: fit.law == "equal-exponents",
        };
        let residual = of_residuals(&residuals(&samples, &fit.params), covariance.names.len());
        let (noise, noise_from) = match of_seeds(&samples) {
            Some(noise) => (noise, NoiseFrom::Repeats),
            None => (Noise::constant(residual), NoiseFrom::Residuals),
        };
        if !(noise.deviation.is_finite() && noise.deviation > 0.0) {
            return Err(DesignError::NoNoise);
        }
        let range = |of: &dyn Fn(&Sample) -> f64| {
            samples.iter().map(of).fold([f64::INFINITY, 0.0f64], |m, v| [m[0].min(v), m[1].max(v)])
        };
        let ranges = Ranges {
            params: range(&|s| s.params),
            tokens: range(&|s| s.tokens),
            tokens_per_param: range(&|s| s.tokens / s.params),
            flops: range(&|s| s.flops),
        };
        let points = samples.drain(..).map(|s| point(&runs[s.record], &s)).collect();
        let mut known = Known {
            law,
            flops_per_param_token: inputs.flops_per_param_token,
            params: options.params,
            noise,
            noise_from,
            residual,
            level: options.level,
            ranges,
            points,
            options: options.clone(),
            frame,
            precision: frame.held(),
        };
        for i in 0..known.points.len() {
            let slope = known.candidate(&known.points[i]).slope;
            known.precision += slope * slope.transpose();
        }
        let inverse = known.precision.cholesky().map(|c| c.inverse());
        match inverse.filter(|m| m.iter().all(|v| v.is_finite())) {
            Some(_) => Ok(known),
            None => Err(undetermined("the covariance of its parameters is infinite".into())),
        }
    }

    /// The value of a target by the law.
    pub fn value(&self, target: &Target) -> f64 {
        target.value(&self.law, self.flops_per_param_token)
    }

    /// Standard deviation of the logarithm of a target once these runs are made too.
    pub fn deviation(&self, target: &Target, more: &[Point]) -> f64 {
        let candidates: Vec<Candidate> = more.iter().map(|p| self.candidate(p)).collect();
        let direction = self.direction(target);
        let places: Vec<usize> = (0..candidates.len()).collect();
        self.search(&direction, &candidates, f64::INFINITY, places.len()).variance(&places).sqrt()
    }

    /// The interval of a target of that deviation.
    pub fn interval(&self, target: &Target, deviation: f64) -> [f64; 2] {
        let reach = quantile(0.5 * (1.0 + self.level)) * deviation;
        [-reach, reach].map(|r| self.value(target) * r.exp())
    }

    /// The `runs` candidates, some perhaps more than once, that leave the least variance of the target for at most
    /// `budget` FLOPs in all, as places among them; none where the budget does not hold so many.
    pub fn best(
        &self,
        target: &Target,
        candidates: &[Point],
        budget: f64,
        runs: usize,
    ) -> Option<Vec<usize>> {
        let candidates: Vec<Candidate> = candidates.iter().map(|p| self.candidate(p)).collect();
        self.search(&self.direction(target), &candidates, budget, runs).best()
    }

    fn search<'a>(
        &'a self,
        direction: &'a Vec5,
        candidates: &'a [Candidate],
        budget: f64,
        runs: usize,
    ) -> Search<'a> {
        Search { precision: &self.precision, direction, candidates, budget, runs }
    }

    /// The target's gradient in the frame: a = ln A - alpha x moves with alpha at a fixed ln A.
    fn direction(&self, target: &Target) -> Vec5 {
        let mut gradient = target.gradient(&self.law, self.flops_per_param_token);
        let [x, y] = self.frame.centre;
        gradient[3] += x * gradient[1];
        gradient[4] += y * gradient[2];
        self.frame.estimated(gradient)
    }

    fn candidate(&self, point: &Point) -> Candidate {
        let Point { params, tokens, flops, .. } = *point;
        let deviation = self.noise.at(flops);
        // Huber's width is in nats where residuals are.
        let scale = if self.options.objective.is_linear() { self.law.loss(params, tokens) } else { 1.0 };
        let delta = if self.options.objective.is_huber() { self.options.delta } else { f64::INFINITY };
        let variance = deviation.powi(2) * inflation(delta / (scale * deviation));
        let slope = self.frame.estimated(slopes(&self.law, params, tokens, self.frame.centre));
        Candidate { slope: slope / variance.sqrt(), flops, place: [params.ln(), tokens.ln()] }
    }
}

fn point(run: &RunRecord, sample: &Sample) -> Point {
    Point {
        id: run.id.clone(),
        params: sample.params,
        tokens: sample.tokens,
        flops: sample.flops,
        convention: run.flops_convention.clone(),
        budget: sample.budget,
        seed: run.seed.unwrap_or(0),
    }
}

/// What of the law is not determined, in words.
fn weak_place(law: &LossParams, status: FitStatus, samples: &[Sample]) -> String {
    let most = |term: &dyn Fn(&Sample) -> f64| {
        samples.iter().map(|s| term(s) / law.loss(s.params, s.tokens)).fold(0.0, f64::max)
    };
    let shares = [
        ("E", law.e, most(&|_| law.e)),
        ("A", law.a, most(&|s| law.a / s.params.powf(law.alpha))),
        ("B", law.b, most(&|s| law.b / s.tokens.powf(law.beta))),
    ];
    if let Some((name, value, _)) = shares.iter().find(|(.., share)| *share < NEGLIGIBLE) {
        return format!("{name} = {value:.3e} is less than a ten-thousandth of every loss");
    }
    let at_end = |v: f64| v <= EXPONENT_MIN * 1.001 || v >= EXPONENT_MAX * 0.999;
    match [("alpha", law.alpha), ("beta", law.beta)].into_iter().find(|(_, v)| at_end(*v)) {
        Some((name, value)) => format!("{name} = {value:.3} is on its bound"),
        None if status == FitStatus::AtBound => "a parameter is on its bound".into(),
        None => "the search for its parameters did not come to an end".into(),
    }
}
