//! Fused causal Transformer-XL attention, forward and backward.

use serde::{Deserialize, Serialize};

/// Dimensions of one relative-attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RelAttention {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub d_head: usize,
}
