//! The laws that fits find: their parameters, losses, optima and exponents.

use serde::{Deserialize, Serialize};

/// The parameters of a fitted law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Params {
    /// L(N, D) = E + A / N^alpha + B / D^beta. Hoffmann et al. 2022, eq. 2.
    Loss(LossParams),
    /// L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D. Kaplan et al. 2020, eq. 1.5.
    Kaplan(KaplanParams),
    /// N* = n_coefficient C^a and D* = d_coefficient C^b, with a and b in [`Exponents`].
    Power { n_coefficient: f64, d_coefficient: f64 },
    /// L(C) = E + A / C^alpha.
    Compute(ComputeParams),
}

impl Params {
    /// Loss in nats per token of `params` parameters after `tokens` tokens; only laws of both have one.
    pub fn loss(&self, params: f64, tokens: f64) -> Option<f64> {
        match self {
            Params::Loss(law) => Some(law.loss(params, tokens)),
            Params::Kaplan(law) => Some(law.loss(params, tokens)),
            Params::Power { .. } | Params::Compute(_) => None,
        }
    }

    /// N* and D* under C = k N D, of a law of both.
    pub(crate) fn optimum(&self, flops: f64, flops_per_param_token: f64) -> Option<(f64, f64)> {
        match self {
            Params::Loss(law) => Some(law.optimum(flops, flops_per_param_token)),
            Params::Kaplan(law) => Some(law.optimum(flops, flops_per_param_token)),
            Params::Power { .. } | Params::Compute(_) => None,
        }
    }

    /// Exponents of N* and D* in compute, of a law of both.
    pub(crate) fn exponents(&self) -> Option<Exponents> {
        match self {
            Params::Loss(law) => Some(law.exponents()),
            Params::Kaplan(law) => Some(law.exponents()),
            Params::Power { .. } | Params::Compute(_) => None,
        }
    }

    /// The parameters by their names in fit.json.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Params::Loss(l) => {
                vec![("E", l.e), ("A", l.a), ("B", l.b), ("alpha", l.alpha), ("beta", l.beta)]
            }
            Params::Kaplan(l) => {
                vec![("N_c", l.n_c), ("D_c", l.d_c), ("alpha_N", l.alpha_n), ("alpha_D", l.alpha_d)]
            }
            Params::Compute(l) => vec![("E", l.e), ("A", l.a), ("alpha", l.alpha)],
            Params::Power { n_coefficient, d_coefficient } => {
                vec![("n_coefficient", n_coefficient), ("d_coefficient", d_coefficient)]
            }
        }
    }
}

/// L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KaplanParams {
    #[serde(rename = "N_c")]
    pub n_c: f64,
    #[serde(rename = "D_c")]
    pub d_c: f64,
    #[serde(rename = "alpha_N")]
    pub alpha_n: f64,
    #[serde(rename = "alpha_D")]
    pub alpha_d: f64,
}

impl KaplanParams {
    /// Loss in nats per token of a model with `params` parameters trained on `tokens` tokens.
    pub fn loss(&self, params: f64, tokens: f64) -> f64 {
        ((self.n_c / params).powf(self.alpha_n / self.alpha_d) + self.d_c / tokens).powf(self.alpha_d)
    }

    /// N* and D* that minimise the loss under C = k N D: with rho = alpha_N / alpha_D,
    /// N*^(1 + rho) = rho N_c^rho C / (k D_c).
    pub fn optimum(&self, flops: f64, flops_per_param_token: f64) -> (f64, f64) {
        let rho = self.alpha_n / self.alpha_d;
        let nd = flops / flops_per_param_token;
        let log = (rho.ln() + rho * self.n_c.ln() + nd.ln() - self.d_c.ln()) / (1.0 + rho);
        (log.exp(), nd / log.exp())
    }

    /// Exponents of N* and D* in compute.
    pub fn exponents(&self) -> Exponents {
        let sum = self.alpha_n + self.alpha_d;
        Exponents { a: self.alpha_d / sum, b: self.alpha_n / sum }
    }
}

/// L(C) = E + A / C^alpha, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ComputeParams {
    #[serde(rename = "E")]
    pub e: f64,
    #[serde(rename = "A")]
    pub a: f64,
    pub alpha: f64,
}

impl ComputeParams {
    /// Loss in nats per token after `flops` FLOPs.
    pub fn loss(&self, flops: f64) -> f64 {
        self.e + self.a / flops.powf(self.alpha)
    }
}

/// L(N, D) = E + A / N^alpha + B / D^beta, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossParams {
    #[serde(rename = "E")]
    pub e: f64,
    #[serde(rename = "A")]
    pub a: f64,
    #[serde(rename = "B")]
    pub b: f64,
    pub alpha: f64,
    pub beta: f64,
}

impl LossParams {
    /// Loss in nats per token of a model with `params` parameters trained on `tokens` tokens.
    pub fn loss(&self, params: f64, tokens: f64) -> f64 {
        self.e + self.a / params.powf(self.alpha) + self.b / tokens.powf(self.beta)
    }

    /// N* and D* that minimise the loss under C = k N D, k being `flops_per_param_token` (6 for 6ND):
    /// N* = G (C/k)^(beta/(alpha+beta)), D* = (C/k)^(alpha/(alpha+beta)) / G, G = (alpha A / (beta B))^(1/(alpha+beta)).
    /// Hoffmann et al. 2022, eq. 4.
    pub fn optimum(&self, flops: f64, flops_per_param_token: f64) -> (f64, f64) {
        let sum = self.alpha + self.beta;
        let g = (self.alpha * self.a / (self.beta * self.b)).powf(1.0 / sum);
        let nd = flops / flops_per_param_token;
        (g * nd.powf(self.beta / sum), nd.powf(self.alpha / sum) / g)
    }

    /// Exponents of N* and D* in compute.
    pub fn exponents(&self) -> Exponents {
        let sum = self.alpha + self.beta;
        Exponents { a: self.beta / sum, b: self.alpha / sum }
    }
}

/// N* grows as C^a and D* as C^b.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Exponents {
    pub a: f64,
    pub b: f64,
}
