//! What a design is for: N* or the loss at a compute, and how it moves with the parameters of the law.

use super::DesignError;
use crate::fit::input::count;
use crate::fit::law::Vec5;
use crate::fit::params::LossParams;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// What is wanted at a compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// N*, the parameters of the best model.
    Nstar,
    /// The loss of the best model, in nats per token.
    Loss,
}

/// The quantity whose interval the next runs are to shrink.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Target {
    pub quantity: Quantity,
    /// FLOPs, by the convention of the fitted runs.
    pub flops: f64,
}

impl Target {
    /// Its value by a law under C = k N D, k being `flops_per_param_token`.
    pub fn value(&self, law: &LossParams, flops_per_param_token: f64) -> f64 {
        let (n, d) = law.optimum(self.flops, flops_per_param_token);
        match self.quantity {
            Quantity::Nstar => n,
            Quantity::Loss => law.loss(n, d),
        }
    }

    /// Slopes of the logarithm of the value in (ln E, ln A, ln B, alpha, beta).
    ///
    /// ln N* = (ln(alpha A) - ln(beta B) + beta ln(C / k)) / (alpha + beta), Hoffmann et al. 2022, eq. 4. The loss is least
    /// at N*, so to first order it moves as at a fixed N and D.
    pub(crate) fn gradient(&self, law: &LossParams, flops_per_param_token: f64) -> Vec5 {
        let (n, d) = law.optimum(self.flops, flops_per_param_token);
        match self.quantity {
            Quantity::Nstar => {
                let sum = law.alpha + law.beta;
                Vec5::new(0.0, 1.0, -1.0, 1.0 / law.alpha - n.ln(), d.ln() - 1.0 / law.beta) / sum
            }
            Quantity::Loss => slopes(law, n, d, [0.0; 2]),
        }
    }
}

/// Slopes of ln L(N, D) in (ln E, a, b, alpha, beta), the scales being those at ln N and ln D of `centre`:
/// A / N^alpha = exp(a - alpha (ln N - centre_0)).
pub(crate) fn slopes(law: &LossParams, params: f64, tokens: f64, centre: [f64; 2]) -> Vec5 {
    let (p, q) = (law.a / params.powf(law.alpha), law.b / tokens.powf(law.beta));
    let loss = law.e + p + q;
    let (x, y) = (params.ln() - centre[0], tokens.ln() - centre[1]);
    Vec5::new(law.e, p, q, -x * p, -y * q) / loss
}

impl FromStr for Target {
    type Err = DesignError;

    /// Reads `nstar@1e23` and `loss@1e23`.
    fn from_str(text: &str) -> Result<Target, DesignError> {
        let bad = || DesignError::BadTarget { found: text.to_string() };
        let (name, flops) = text.split_once('@').ok_or_else(bad)?;
        let quantity = match name.trim().to_lowercase().as_str() {
            "nstar" | "n*" => Quantity::Nstar,
            "loss" => Quantity::Loss,
            _ => return Err(bad()),
        };
        let flops = count(flops.trim()).map_err(|_| bad())?;
        Ok(Target { quantity, flops })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.quantity {
            Quantity::Nstar => "N*",
            Quantity::Loss => "loss",
        };
        write!(f, "{name} at {} FLOPs", crate::fit::format_flops(self.flops))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let law = LossParams { e: 1.69, a: 406.4, b: 410.7, alpha: 0.34, beta: 0.28 };
        // theta moved by h in one place.
        let moved = |i: usize, h: f64| {
            let mut theta = [law.e.ln(), law.a.ln(), law.b.ln(), law.alpha, law.beta];
            theta[i] += h;
            let [e, a, b, alpha, beta] = theta;
            LossParams { e: e.exp(), a: a.exp(), b: b.exp(), alpha, beta }
        };
        for (quantity, flops) in [(Quantity::Nstar, 1e21), (Quantity::Nstar, 1e24), (Quantity::Loss, 1e23)] {
            let target = Target { quantity, flops };
            let gradient = target.gradient(&law, 6.0);
            for i in 0..5 {
                let h = 1e-5;
                let ends = [-h, h].map(|h| target.value(&moved(i, h), 6.0).ln());
                let slope = (ends[1] - ends[0]) / (2.0 * h);
                assert!((gradient[i] - slope).abs() < 1e-6 * slope.abs().max(1.0), "{target} {i}: {slope}");
            }
        }
        for i in 0..5 {
            let h = 1e-5;
            let ends = [-h, h].map(|h| moved(i, h).loss(3e8, 7e9).ln());
            let slope = (ends[1] - ends[0]) / (2.0 * h);
            assert!((slopes(&law, 3e8, 7e9, [0.0; 2])[i] - slope).abs() < 1e-7 * slope.abs().max(1.0), "{i}");
        }
    }

    #[test]
    fn targets_are_read_or_refused() {
        let target: Target = "nstar@1e23".parse().unwrap();
        assert_eq!(target, Target { quantity: Quantity::Nstar, flops: 1e23 });
        assert_eq!(target.to_string(), "N* at 1e23 FLOPs");
        assert_eq!("Loss@5.76e23".parse::<Target>().unwrap().to_string(), "loss at 5.76e23 FLOPs");
        for text in ["", "nstar", "loss@", "loss@0", "loss@-1e3", "dstar@1e23", "nstar@1e23@2"] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("nstar@1e23") && error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
