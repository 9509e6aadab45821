//! What a model and its training step are, before they become a graph.

use serde::{Deserialize, Serialize};

/// A Gopher-family decoder (Rae et al. 2021): RMSNorm, Transformer-XL relative attention, GELU feed-forward.
/// `n_heads * d_head` is free to differ from `d_model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub n_layers: usize,
    pub n_heads: usize,
    /// Width of one head's queries, keys and values.
    pub d_head: usize,
    /// Even, because the table of positions has two halves.
    pub d_model: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
    /// Tokens of context.
    pub seq_len: usize,
    /// The output head is the embedding matrix.
    #[serde(default = "yes")]
    pub tied_embeddings: bool,
    /// Biases on every projection and on the logits, as in Chinchilla's Table A9; Gopher's own counts have none.
    #[serde(default)]
    pub bias: bool,
    /// Added to the mean square inside RMSNorm's root. Not published for Gopher.
    #[serde(default = "default_rms_eps")]
    pub rms_eps: f64,
    /// Standard deviation of the normal initial weights. Not published for Gopher.
    #[serde(default = "default_init_std")]
    pub init_std: f64,
}

fn yes() -> bool {
    true
}

fn default_rms_eps() -> f64 {
    1e-6
}

fn default_init_std() -> f64 {
    0.02
}

impl ModelConfig {
    /// A model of Gopher's form: feed-forward layers four times as wide as `d_model`, tied embeddings, no biases, and
    /// for what is not published the values that a model file may leave out. `ModelConfig { bias: true,
    /// ..ModelConfig::gopher(2, 4, 16, 64, 256, 128) }` is another one.
    pub fn gopher(
        n_layers: usize,
        n_heads: usize,
        d_head: usize,
        d_model: usize,
        vocab_size: usize,
        seq_len: usize,
    ) -> Self {
        ModelConfig {
            n_layers,
            n_heads,
            d_head,
            d_model,
            d_ff: d_model.saturating_mul(4),
            vocab_size,
            seq_len,
            tied_embeddings: true,
            bias: false,
            rms_eps: default_rms_eps(),
            init_std: default_init_std(),
        }
    }

    /// Width of all heads together: `n_heads * d_head`.
    pub fn d_attn(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// The first thing wrong with these numbers, in words that name the key.
    pub fn check(&self) -> Result<(), String> {
        let keys = [
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("d_head", self.d_head),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("vocab_size", self.vocab_size),
            ("seq_len", self.seq_len),
        ];
        if let Some((key, _)) = keys.iter().find(|(_, v)| *v == 0) {
            return Err(format!("{key} is 0; it must be at least 1"));
        }
        if self.d_model % 2 == 1 {
            return Err(format!("d_model is {}; it must be even", self.d_model));
        }
        if self.vocab_size > i32::MAX as usize {
            return Err(format!("vocab_size is {}; token ids are 32-bit", self.vocab_size));
        }
        for (key, v) in [("rms_eps", self.rms_eps), ("init_std", self.init_std)] {
            if !(v.is_finite() && v > 0.0) {
                return Err(format!("{key} is {v}; it must be a positive number"));
            }
        }
        Ok(())
    }
}

/// AdamW with decoupled weight decay and clipping by global norm (Loshchilov & Hutter 2019). The learning rate and
/// the bias corrections change every step and are inputs of the program; these are baked into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    pub betas: [f64; 2],
    pub eps: f64,
    /// Applied to weight matrices only: not to gains, u, v and biases.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down to it.
    pub clip: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

/// What one call of the training program does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepConfig {
    /// Sequences in one step.
    pub batch: usize,
    pub optimizer: AdamW,
    /// Also output every gradient before clipping, as `grad.<name>`.
    #[serde(default)]
    pub output_gradients: bool,
    /// Most bytes the training program may take; where it would take more, values are computed again instead of kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<u64>,
}

impl StepConfig {
    /// A step of `batch` sequences with the default optimizer, its loss and norm of the gradient as outputs, and no limit
    /// to its memory.
    pub fn new(batch: usize) -> Self {
        StepConfig { batch, optimizer: AdamW::default(), output_gradients: false, memory_budget: None }
    }
}
