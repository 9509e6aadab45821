//! The one place that counts: parameters, FLOPs of a training token by named convention, bytes of state, utilisation.
//!
//! The planner, the metrics of a run, utilisation and the fits all call these functions, so that two numbers that
//! should agree cannot come from two formulas.

use crate::config::ModelConfig;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Trained parameters by what they are. `d` is `d_model`, `A` is `n_heads * d_head`, `L` is `n_layers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamCount {
    /// The embedding matrix, `V*d`; twice that when the head is a matrix of its own.
    pub embedding: u64,
    /// Matrices of the layers: `L * (5*d*A + 2*d*d_ff)`: q, k, v, relative positions, output, and the feed-forward pair.
    pub layers: u64,
    /// RMSNorm gains, `2*L*d + d`.
    pub gains: u64,
    /// The position biases u and v, `2*L*A`.
    pub position_biases: u64,
    /// With `bias`: `L * (4*A + 2*d + d_ff)` for the projections.
    pub biases: u64,
    /// With `bias`: `V` for the logits.
    pub logit_bias: u64,
}

impl ParamCount {
    /// Weight matrices only: what the published sizes count, `13*L*d^2 + V*d` for a Gopher.
    pub fn weights(&self) -> u64 {
        sum(&[self.embedding, self.layers])
    }

    /// Every trained number.
    pub fn total(&self) -> u64 {
        sum(&[self.weights(), self.gains, self.position_biases, self.biases, self.logit_bias])
    }

    /// Everything but the embedding, a separate head and the bias of the logits.
    pub fn non_embedding(&self) -> u64 {
        sum(&[self.layers, self.gains, self.position_biases, self.biases])
    }
}

/// Counts the trained parameters of a model. Saturates instead of overflowing.
pub fn parameters(model: &ModelConfig) -> ParamCount {
    let [l, d, a, f, v] =
        [model.n_layers, model.d_model, model.d_attn(), model.d_ff, model.vocab_size].map(|x| x as u128);
    let tables = if model.tied_embeddings { 1 } else { 2 };
    let bias = u128::from(model.bias);
    ParamCount {
        embedding: narrow(tables * v * d),
        layers: narrow(l * (5 * d * a + 2 * d * f)),
        gains: narrow(2 * l * d + d),
        position_biases: narrow(2 * l * a),
        biases: narrow(bias * l * (4 * a + 2 * d + f)),
        logit_bias: narrow(bias * v),
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |total, x| total.saturating_add(*x))
}

fn narrow(x: u128) -> u64 {
    u64::try_from(x).unwrap_or(u64::MAX)
}

/// Bytes that live from step to step: an f32 parameter and its two f32 Adam moments.
pub fn state_bytes(model: &ModelConfig) -> u64 {
    parameters(model).total().saturating_mul(12)
}

/// What a FLOP count counts. No count is printed or stored without one of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// `6 * N_non_embedding` a token (Kaplan et al. 2020).
    Kaplan,
    /// `6 * N` a token, N being every trained parameter, gains, u and v included.
    #[serde(rename = "6nd")]
    SixNd,
    /// Hoffmann et al. 2022, Appendix F: embedding, q/k/v, logits, softmax, values, output, feed-forward, head;
    /// attention in full, backward twice forward. It knows no relative term.
    Chinchilla,
    /// What Table A4 of the same paper was computed with: as `chinchilla` with neither embedding nor head.
    ChinchillaTable,
    /// Products of matrices of our own step, attention over the causal half only, relative term and W_r included.
    ExactCausal,
    /// As `exact-causal` with attention over the full square.
    ExactFull,
}

impl Convention {
    pub const ALL: [Convention; 6] = [
        Convention::Kaplan,
        Convention::SixNd,
        Convention::Chinchilla,
        Convention::ChinchillaTable,
        Convention::ExactCausal,
        Convention::ExactFull,
    ];

    /// The name used in sweep files, tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Convention::Kaplan => "kaplan",
            Convention::SixNd => "6nd",
            Convention::Chinchilla => "chinchilla",
            Convention::ChinchillaTable => "chinchilla-table",
            Convention::ExactCausal => "exact-causal",
            Convention::ExactFull => "exact-full",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `found` names no convention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a FLOP convention; choose one of {}", Convention::ALL.map(Convention::name).join(", "))]
pub struct UnknownConvention {
    pub found: String,
}

impl FromStr for Convention {
    type Err = UnknownConvention;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Convention::ALL
            .into_iter()
            .find(|c| c.name() == s)
            .ok_or_else(|| UnknownConvention { found: s.to_owned() })
    }
}

/// FLOPs of training on one token, forward and backward, without recomputation.
///
/// `batch` is the number of sequences in a step: W_r r is computed once per step whatever the batch, so its share
/// of a token falls with it. Only the exact conventions depend on it.
pub fn flops_per_token(model: &ModelConfig, convention: Convention, batch: usize) -> f64 {
    let [l, d, a, f, v, t, h] = [
        model.n_layers,
        model.d_model,
        model.d_attn(),
        model.d_ff,
        model.vocab_size,
        model.seq_len,
        model.n_heads,
    ]
    .map(|x| x as f64);
    let n = parameters(model);
    // Forward products of the layers that a token pays whatever the context: q, k, v, output, feed-forward.
    let projections = l * (2.0 * 4.0 * d * a + 2.0 * 2.0 * d * f);
    let chinchilla_layers = projections + l * (4.0 * t * a + 3.0 * h * t);
    let exact = |context: f64| {
        // Scores, values and the relative scores are each 2*A FLOPs per pair of positions.
        let forward = projections + 2.0 * d * v + l * 6.0 * a * context;
        // The table of positions is not trained, so W_r has one product forward and one backward, not two.
        let relative = l * 2.0 * 2.0 * d * a / batch.max(1) as f64;
        3.0 * forward + relative
    };
    match convention {
        Convention::Kaplan => 6.0 * n.non_embedding() as f64,
        Convention::SixNd => 6.0 * n.total() as f64,
        Convention::Chinchilla => 3.0 * (chinchilla_layers + 2.0 * 2.0 * v * d),
        Convention::ChinchillaTable => 3.0 * chinchilla_layers,
        Convention::ExactCausal => exact((t + 1.0) / 2.0),
        Convention::ExactFull => exact(t),
    }
}

/// Model FLOPs utilisation: the FLOPs the model needs, by a named convention, over the device's peak. Recomputed
/// work does not count (Chowdhery et al. 2022).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mfu {
    pub fraction: f64,
    pub convention: Convention,
}

impl Mfu {
    /// `peak` in FLOP/s.
    pub fn new(
        model: &ModelConfig,
        convention: Convention,
        batch: usize,
        tokens_per_s: f64,
        peak: f64,
    ) -> Self {
        Mfu { fraction: flops_per_token(model, convention, batch) * tokens_per_s / peak, convention }
    }
}

/// Hardware FLOPs utilisation: the FLOPs the device executed, recomputation included, over its peak. Never compare
/// one with an [`Mfu`]: full recomputation alone makes it 4/3 of that.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Hfu(pub f64);

impl Hfu {
    /// `executed` FLOPs of one step that took `seconds` on a device of `peak` FLOP/s.
    pub fn new(executed: f64, seconds: f64, peak: f64) -> Self {
        Hfu(executed / seconds / peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layers, heads, d_head, d_model of Rae et al. 2021, Table 1.
    const GOPHER: [(usize, usize, usize, usize, u64); 6] = [
        (8, 16, 32, 512, 43_646_976),
        (12, 12, 64, 768, 116_588_544),
        (12, 12, 128, 1_536, 417_202_176),
        (24, 16, 128, 2_048, 1_374_158_848),
        (32, 32, 128, 4_096, 7_110_393_856),
        (80, 128, 128, 16_384, 279_697_162_240),
    ];

    fn gopher(i: usize) -> ModelConfig {
        let (n_layers, n_heads, d_head, d_model, _) = GOPHER[i];
        ModelConfig::gopher(n_layers, n_heads, d_head, d_model, 32_000, 2_048)
    }

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        assert!(
            (found / expected - 1.0).abs() < relative,
            "{found:e} is not {expected:e} within {relative:e}"
        );
    }

    #[test]
    fn the_six_published_sizes() {
        for (i, &(l, h, k, d, weights)) in GOPHER.iter().enumerate() {
            let n = parameters(&gopher(i));
            assert_eq!(n.weights(), weights);
            assert_eq!(n.total() - n.weights(), ((2 * d + 2 * h * k) * l + d) as u64);
        }
        assert_eq!(parameters(&gopher(0)).total(), 43_663_872);
        assert_eq!(state_bytes(&gopher(0)), 43_663_872 * 12);
    }

    #[test]
    fn chinchilla_biases_add_ten_d_a_layer_and_the_vocabulary() {
        for i in 0..6 {
            let plain = gopher(i);
            let biased = ModelConfig { bias: true, ..plain.clone() };
            let added = 10 * plain.d_model * plain.n_layers + plain.vocab_size;
            assert_eq!(parameters(&biased).total() - parameters(&plain).total(), added as u64);
        }
    }

    #[test]
    fn untying_adds_one_table_and_leaves_the_rest() {
        let tied = gopher(1);
        let untied = ModelConfig { tied_embeddings: false, ..tied.clone() };
        assert_eq!(parameters(&untied).total() - parameters(&tied).total(), 32_000 * 768);
        assert_eq!(parameters(&untied).non_embedding(), parameters(&tied).non_embedding());
    }

    #[test]
    fn published_compute_of_gopher_280b() {
        let m = gopher(5);
        close(300e9 * flops_per_token(&m, Convention::SixNd, 1), 5.03e23, 2e-3);
        // Four times the forward of the layers: recomputation included, neither embedding nor head.
        close(300e9 * flops_per_token(&m, Convention::ChinchillaTable, 1) * 4.0 / 3.0, 6.314e23, 2e-4);
    }

    #[test]
    fn six_n_over_counts_by_the_relative_projection() {
        // W_r in 6*N*D, though it is computed once a step: 5.0 % of the 44M model, 8.3 % of the 280B.
        for (i, excess) in [(0, 0.050), (5, 0.083)] {
            let m = gopher(i);
            let w_r = (m.n_layers * m.d_model * m.d_attn()) as f64;
            let weights = parameters(&m).weights() as f64;
            assert!((weights / (weights - w_r) - 1.0 - excess).abs() < 6e-4);
        }
    }

    #[test]
    fn attention_share_of_weight_products_at_full_context() {
        for (i, share) in [0.61, 0.52, 0.29, 0.24, 0.12, 0.03].into_iter().enumerate() {
            let m = gopher(i);
            let endless = usize::MAX;
            let zero_context = ModelConfig { seq_len: 0, ..m.clone() };
            let weights = flops_per_token(&zero_context, Convention::ExactFull, endless);
            let found = flops_per_token(&m, Convention::ExactFull, endless) / weights - 1.0;
            assert!((found - share).abs() < 6e-3, "size {i}: {found}");
        }
    }

    #[test]
    fn the_causal_half_and_the_batch_matter_only_to_exact_counts() {
        let m = gopher(0);
        for c in Convention::ALL {
            let [one, many] = [1, 64].map(|b| flops_per_token(&m, c, b));
            let exact = matches!(c, Convention::ExactCausal | Convention::ExactFull);
            assert_eq!(one > many, exact, "{c}");
        }
        let attention = 3.0 * (8 * 6 * 512) as f64;
        let half =
            flops_per_token(&m, Convention::ExactFull, 1) - flops_per_token(&m, Convention::ExactCausal, 1);
        assert_eq!(half, attention * (2_048.0 - 2_049.0 / 2.0));
    }

    #[test]
    fn names_round_trip() {
        for c in Convention::ALL {
            assert_eq!(c.name().parse(), Ok(c));
            assert_eq!(serde_json::to_string(&c).unwrap(), format!("\"{c}\""));
        }
        let e = "6n".parse::<Convention>().unwrap_err();
        assert!(e.to_string().contains("`6n`") && e.to_string().contains("6nd"), "{e}");
    }

    #[test]
    fn absurd_shapes_saturate() {
        let m = ModelConfig { d_model: 1 << 40, n_heads: 1 << 20, d_head: 1 << 20, ..gopher(0) };
        assert_eq!(parameters(&m).total(), u64::MAX);
    }

    #[test]
    fn full_recomputation_is_four_thirds() {
        let m = gopher(3);
        let (rate, peak) = (1000.0, 312e12);
        let mfu = Mfu::new(&m, Convention::ChinchillaTable, 128, rate, peak);
        let executed = flops_per_token(&m, Convention::ChinchillaTable, 128) * 4.0 / 3.0;
        let hfu = Hfu::new(executed * rate, 1.0, peak);
        close(hfu.0 / mfu.fraction, 4.0 / 3.0, 1e-12);
    }
}
