//! A decoder as the planner of clusters sees it: our own models, and the published ones that its estimates are checked on.

use isoflop_compiler::config::ModelConfig;
use isoflop_compiler::count::{Convention, flops_per_token};

/// What time and memory of a training step depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transformer {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    /// Heads of keys and values; fewer than `n_heads` with grouped queries.
    pub n_kv_heads: usize,
    pub d_head: usize,
    pub d_ff: usize,
    /// Two matrices into the feed-forward layer instead of one.
    pub gated: bool,
    /// Transformer-XL attention: a third product of the scores' shape, and a projection of the relative positions.
    pub relative: bool,
    /// The head is the embedding matrix.
    pub tied: bool,
    pub vocab_size: usize,
    pub seq_len: usize,
}

impl Transformer {
    /// Width of all queries together.
    pub fn d_attn(&self) -> f64 {
        (self.n_heads * self.d_head) as f64
    }

    /// Width of queries, keys and values together.
    pub fn d_qkv(&self) -> f64 {
        ((self.n_heads + 2 * self.n_kv_heads) * self.d_head) as f64
    }

    /// Width of what enters the feed-forward layer's nonlinearity.
    pub fn d_up(&self) -> f64 {
        (self.d_ff * if self.gated { 2 } else { 1 }) as f64
    }

    /// Weights of one layer's matrices.
    pub fn layer_weights(&self) -> f64 {
        let d = self.d_model as f64;
        let relative = if self.relative { d * self.d_attn() } else { 0.0 };
        d * (self.d_qkv() + self.d_attn() + self.d_up() + self.d_ff as f64) + relative
    }

    /// Weights of one embedding matrix.
    pub fn table_weights(&self) -> f64 {
        (self.vocab_size * self.d_model) as f64
    }

    /// Weights of all matrices.
    pub fn weights(&self) -> f64 {
        let tables = if self.tied { 1.0 } else { 2.0 };
        self.n_layers as f64 * self.layer_weights() + tables * self.table_weights()
    }

    /// FLOPs of a training token's products, attention over the full square, without recomputation: the convention of
    /// Narayanan et al. 2021, with our relative term where there is one.
    pub fn flops_per_token(&self) -> f64 {
        let layers = self.n_layers as f64;
        let products = layers * (self.layer_weights() - self.relative_weights()) + self.table_weights();
        let scores = if self.relative { 6.0 } else { 4.0 };
        6.0 * products + 3.0 * layers * scores * self.d_attn() * self.seq_len as f64
    }

    fn relative_weights(&self) -> f64 {
        if self.relative { self.d_model as f64 * self.d_attn() } else { 0.0 }
    }
}

impl From<&ModelConfig> for Transformer {
    fn from(m: &ModelConfig) -> Self {
        Transformer {
            n_layers: m.n_layers,
            d_model: m.d_model,
            n_heads: m.n_heads,
            n_kv_heads: m.n_heads,
            d_head: m.d_head,
            d_ff: m.d_ff,
            gated: false,
            relative: true,
            tied: m.tied_embeddings,
            vocab_size: m.vocab_size,
            seq_len: m.seq_len,
        }
    }
}

/// FLOPs of the layers that recomputation in full repeats, of one token: what HFU counts more than MFU.
pub fn recomputed_flops_per_token(model: &ModelConfig, batch: usize) -> f64 {
    let all = flops_per_token(model, Convention::ExactCausal, batch);
    let head = 6.0 * (model.d_model * model.vocab_size) as f64;
    (all - head) / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use isoflop_compiler::count::parameters;

    #[test]
    fn our_models_have_the_weights_and_flops_that_the_compiler_counts() {
        let model = ModelConfig::gopher(12, 12, 64, 768, 32_000, 2_048);
        let t = Transformer::from(&model);
        assert_eq!(t.weights(), parameters(&model).weights() as f64);
        // W_r r is computed once a step: with an endless batch it costs nothing.
        let exact = flops_per_token(&model, Convention::ExactFull, usize::MAX);
        assert!((t.flops_per_token() / exact - 1.0).abs() < 1e-9, "{} {exact}", t.flops_per_token());
    }

    #[test]
    fn a_gpt_has_twelve_squares_a_layer() {
        let gpt = Transformer {
            n_layers: 96,
            d_model: 12_288,
            n_heads: 96,
            n_kv_heads: 96,
            d_head: 128,
            d_ff: 4 * 12_288,
            gated: false,
            relative: false,
            tied: true,
            vocab_size: 51_200,
            seq_len: 2_048,
        };
        assert_eq!(gpt.layer_weights(), 12.0 * 12_288f64.powi(2));
        // Narayanan et al. 2021: 72 B s l h^2 (1 + s/6h + V/12lh) without recomputation.
        let (l, h, s, v) = (96.0, 12_288.0f64, 2_048.0, 51_200.0);
        let published = 72.0 * l * h * h * (1.0 + s / (6.0 * h) + v / (12.0 * l * h));
        assert!((gpt.flops_per_token() / published - 1.0).abs() < 1e-12);
    }
}
