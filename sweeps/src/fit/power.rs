//! Power laws by least squares in logarithms, shared by approaches 1 and 2.

use super::intervals::{Resampled, Spread};
use super::options::FitOptions;
use super::parametric::Sample;
use super::result::{Bias, Bootstrap, Cloud, Estimate, Exponents, Fit, FitStatus, Optimum, Params};
use std::collections::BTreeMap;

/// y = exp(level) x^slope.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Power {
    pub level: f64,
    pub slope: f64,
    /// Sum of squared residuals of ln y.
    pub squares: f64,
}

impl Power {
    pub fn at(&self, x: f64) -> f64 {
        (self.level + self.slope * x.ln()).exp()
    }
}

/// The least-squares line through (ln x, ln y); none when fewer than two different x.
pub(crate) fn power_law(xy: &[(f64, f64)]) -> Option<Power> {
    let n = xy.len() as f64;
    let (x_mean, y_mean) = xy.iter().fold((0.0, 0.0), |m, (x, y)| (m.0 + x.ln() / n, m.1 + y.ln() / n));
    let (mut xx, mut xy_sum) = (0.0, 0.0);
    for (x, y) in xy {
        xx += (x.ln() - x_mean).powi(2);
        xy_sum += (x.ln() - x_mean) * (y.ln() - y_mean);
    }
    if xx < 1e-9 {
        return None;
    }
    let slope = xy_sum / xx;
    let level = y_mean - slope * x_mean;
    let squares = xy.iter().map(|(x, y)| (y.ln() - level - slope * x.ln()).powi(2)).sum();
    Some(Power { level, slope, squares })
}

/// The laws of N* and D* of one estimate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub params: Power,
    pub tokens: Power,
}

/// The laws through (C, N*, D*).
pub(crate) fn pair(optima: &[(f64, f64, f64)]) -> Option<Pair> {
    let params = power_law(&optima.iter().map(|o| (o.0, o.1)).collect::<Vec<_>>())?;
    let tokens = power_law(&optima.iter().map(|o| (o.0, o.2)).collect::<Vec<_>>())?;
    Some(Pair { params, tokens })
}

/// How far laws found from runs of a known law are from it, at the largest compute.
pub(crate) fn bias(found: &Pair, samples: &[Sample], law: &Params, k: f64) -> Option<Bias> {
    let top = samples.iter().map(|s| s.flops).fold(0.0, f64::max);
    let (params, tokens) = law.optimum(top, k)?;
    let bias = Bias {
        a: found.params.slope - law.exponents()?.a,
        params: found.params.at(top) / params,
        tokens: found.tokens.at(top) / tokens,
    };
    [bias.a, bias.params, bias.tokens].iter().all(|v| v.is_finite()).then_some(bias)
}

type Quantity = fn(&Pair) -> f64;

/// The part of a [`Fit`] that approaches 1 and 2 share, from the estimate and its resamples.
pub(crate) fn fit(
    (approach, form): (u8, &str),
    n: usize,
    best: Pair,
    resampled: &Resampled<Pair>,
    grid: &[f64],
    options: &FitOptions,
) -> Fit {
    let spread = Spread::new(&best, resampled, options);
    let named: [(&str, Quantity); 4] = [
        ("a", |p| p.params.slope),
        ("b", |p| p.tokens.slope),
        ("n_coefficient", |p| p.params.level.exp()),
        ("d_coefficient", |p| p.tokens.level.exp()),
    ];
    let intervals: BTreeMap<_, _> =
        named.iter().filter_map(|(name, value)| Some((name.to_string(), spread.interval(value)?))).collect();
    let estimate =
        |value: &dyn Fn(&Pair) -> f64| Estimate { value: value(&best), interval: spread.interval(value) };
    let optimum = grid
        .iter()
        .map(|&flops| Optimum {
            flops,
            params: estimate(&|p| p.params.at(flops)),
            tokens: estimate(&|p| p.tokens.at(flops)),
            tokens_per_param: estimate(&|p| p.tokens.at(flops) / p.params.at(flops)),
            loss: None,
        })
        .collect();
    Fit {
        approach,
        form: form.into(),
        law: "power".into(),
        status: FitStatus::Converged,
        n,
        objective: best.params.squares,
        params: Params::Power {
            n_coefficient: best.params.level.exp(),
            d_coefficient: best.tokens.level.exp(),
        },
        exponents: Exponents { a: best.params.slope, b: best.tokens.slope },
        intervals,
        profiles: BTreeMap::new(),
        covariance: None,
        bootstrap: (options.bootstrap > 0).then_some(Bootstrap {
            method: options.intervals,
            stratified: approach == 2,
            level: options.level,
            seed: options.seed,
            resamples: resampled.drawn,
            used: resampled.draws.len(),
            linear: resampled.linear,
        }),
        optimum,
        minima: Vec::new(),
        envelope: Vec::new(),
        bias: None,
        cloud: Cloud::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_is_recovered_and_one_point_has_none() {
        let xy: Vec<_> = (1..6).map(|i| (10f64.powi(i), 3.0 * 10f64.powi(i).powf(0.49))).collect();
        let law = power_law(&xy).unwrap();
        assert!(
            (law.slope - 0.49).abs() < 1e-12 && (law.at(1e9) / (3.0 * 1e9f64.powf(0.49)) - 1.0).abs() < 1e-9
        );
        assert_eq!(power_law(&xy[..1]), None);
    }
}
