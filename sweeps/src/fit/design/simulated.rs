//! A design tried out: losses of old and new runs drawn from the law many times, each draw fitted, the target's spread.

use super::known::Known;
use super::target::Target;
use crate::fit::noise::{of_repeats, weigh};
use crate::fit::options::{FitOptions, Starts};
use crate::fit::parametric::{self, Sample};
use crate::fit::params::Params;
use crate::fit::simulate::{Point, Simulation};
use rayon::prelude::*;
use serde::Serialize;

/// Fitted runs times draws that are worth the time; of more runs there are fewer draws, though at least `FEWEST`.
const WORK: usize = 20_000_000;
const FEWEST: usize = 20;

/// How a target spreads over draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Simulated {
    /// Draws made, and those whose fit has the target.
    pub drawn: usize,
    pub fitted: usize,
    pub median: f64,
    /// Percentiles, as many of the draws inside as the fit's level says.
    pub interval: [f64; 2],
}

impl Known {
    /// The spread of a target over fits to `repeats` draws of the fitted runs and `more` (fewer with more than 100,000 runs),
    /// none where fewer than 20 of them have the target. Equal draws of the fitted runs lie under every `more`; they depend on the fit's seed.
    pub fn simulate(&self, target: &Target, more: &[Point], repeats: usize) -> Option<Simulated> {
        let simulation = Simulation {
            law: self.law,
            points: self.points.iter().chain(more).cloned().collect(),
            noise: self.noise,
            outliers: 0.0,
            outlier_factor: 1.0,
            seed: self.options.seed,
        };
        let options = FitOptions { starts: Starts::Projection, ..self.options.clone() };
        let one = |draw: usize| -> Option<f64> {
            let mut samples: Vec<Sample> = simulation.draw(draw as u64).iter().map(sample).collect();
            if let Some(noise) = of_repeats(&samples).filter(|_| options.seed_weights) {
                weigh(&mut samples, &noise);
            }
            let found = parametric::solve(&samples, &options).filter(|s| s.status.is_sound())?;
            let Params::Loss(law) = found.law else { return None };
            Some(target.value(&law, self.flops_per_param_token)).filter(|v| v.is_finite())
        };
        let drawn = repeats.min((WORK / simulation.points.len()).max(FEWEST));
        let mut values: Vec<f64> = (0..drawn).into_par_iter().filter_map(one).collect();
        values.sort_by(f64::total_cmp);
        if values.len() < FEWEST {
            return None;
        }
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        let tail = 0.5 * (1.0 - self.level);
        let interval = [at(tail), at(1.0 - tail)];
        Some(Simulated { drawn, fitted: values.len(), median: at(0.5), interval })
    }
}

fn sample(run: &crate::fit::RunRecord) -> Sample {
    Sample {
        record: 0,
        params: run.params,
        tokens: run.tokens,
        flops: run.flops,
        budget: run.budget,
        // Draws have a validation loss.
        loss: run.validation_loss.unwrap_or(f64::NAN),
        weight: 1.0,
    }
}
