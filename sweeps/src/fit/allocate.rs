//! What a compute budget buys by a fitted law: parameters, tokens and loss with intervals, and a shape that can be built.

use super::document::FitDocument;
use super::options::ParamCount;
use super::result::Estimate;
use crate::family::{Base, FamilyName};
use isoflop_compiler::config::ModelConfig;
use isoflop_compiler::count::parameters;
use serde::Serialize;

/// The best use of a budget by approach 3.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Allocation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The budget in FLOPs, by the convention of the fitted runs.
    pub flops: f64,
    /// N*, D*, D* / N* and the loss there.
    pub params: Estimate,
    pub tokens: Estimate,
    pub tokens_per_param: Estimate,
    pub loss: Estimate,
    /// FLOPs over those of the largest fitted run.
    pub extrapolation: f64,
    pub shape: Shape,
}

/// The shape of the family that is nearest to N*.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// The published size with these widths, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_head: usize,
    pub d_model: usize,
    pub d_ff: usize,
    /// Counted as the fit counts.
    pub params: f64,
    /// What the budget leaves of tokens for this shape.
    pub tokens: f64,
    pub loss: Estimate,
}

/// The best use of each budget by each law of approach 3 that has an optimum; with `group`, by that group's only.
pub fn allocate(
    document: &FitDocument,
    budgets: &[f64],
    group: Option<&str>,
    family: FamilyName,
    base: &Base,
) -> Vec<Allocation> {
    let mut found = Vec::new();
    for (of, inputs) in document.fitted().filter(|(of, _)| group.is_none() || *of == group) {
        let laws = document.fits.iter().filter(|f| f.group.as_deref() == of && f.fit.approach == 3);
        let k = inputs.flops_per_param_token;
        for law in laws.map(|f| &f.fit).filter(|f| f.status.is_sound()) {
            for &flops in budgets {
                let Some((n, d)) = law.optimum_at(flops, k) else { continue };
                let estimate = |value: f64, of: &dyn Fn(f64, f64) -> f64| {
                    let spread = |p: &super::Params| p.optimum(flops, k).map_or(f64::NAN, |(n, d)| of(n, d));
                    Estimate { value, interval: law.interval_of(&spread) }
                };
                let Some(best) = law.params.loss(n, d) else { continue };
                let interval = law.interval_of(&|p| {
                    p.optimum(flops, k).and_then(|(n, d)| p.loss(n, d)).unwrap_or(f64::NAN)
                });
                let model =
                    family.shape_near(base, n, document.inputs.options.params == ParamCount::NonEmbedding);
                let counted = parameters(&model);
                let params = match document.inputs.options.params {
                    ParamCount::Total => counted.total() as f64,
                    ParamCount::NonEmbedding => counted.non_embedding() as f64,
                };
                let tokens = flops / (k * params);
                let Some(loss) = law.loss_at(params, tokens) else { continue };
                let name = family.sizes(base).into_iter().find(|s| s.model == model).map(|s| s.name);
                found.push(Allocation {
                    group: of.map(str::to_string),
                    flops,
                    params: estimate(n, &|n, _| n),
                    tokens: estimate(d, &|_, d| d),
                    tokens_per_param: estimate(d / n, &|n, d| d / n),
                    loss: Estimate { value: best, interval },
                    extrapolation: flops / inputs.flops[1],
                    shape: shape(name, &model, params, tokens, loss),
                });
            }
        }
    }
    found
}

fn shape(name: Option<String>, model: &ModelConfig, params: f64, tokens: f64, loss: Estimate) -> Shape {
    let ModelConfig { n_layers, n_heads, d_head, d_model, d_ff, .. } = *model;
    Shape { name, n_layers, n_heads, d_head, d_model, d_ff, params, tokens, loss }
}
