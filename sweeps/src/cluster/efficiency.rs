//! How much of what a data sheet promises a training step reaches: shares and overheads, each editable.

use serde::{Deserialize, Serialize};

/// Shares of peaks, and times that overlap nothing. One set serves every model and layout on a device; the shares
/// `products` and `attention` differ between devices and come with their descriptions.
///
/// The defaults were fitted together to the published runs of tests/golden/published.csv that are marked `fit`, by least
/// mean |log error|; docs/measurements.md has the errors on those and on runs that were not fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Efficiency {
    /// Share of the peak that products of endless matrices reach; from the device where it is not given here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub products: Option<f64>,
    /// Share of the peak that fused attention reaches, its causal half counted; from the device as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<f64>,
    /// Length of a matrix side at which a product reaches half of `products`.
    pub half_dim: f64,
    /// The same for the heads of attention that is made of products.
    pub half_head: f64,
    /// Share of the memory's bandwidth.
    pub memory: f64,
    /// Bytes that elementwise kernels move, over what fused ones must.
    pub traffic: f64,
    /// The same again where nothing is fused.
    pub eager: f64,
    /// Share of the bandwidth between GPUs of a node, and between nodes.
    pub intra_node: f64,
    pub inter_node: f64,
    /// Seconds of a collective or message of no bytes, and of launching a product.
    pub latency: f64,
    pub launch: f64,
    /// Share of communication that hides behind work, where the software overlaps the two.
    pub overlap: f64,
    /// Share of the time of gathering sharded weights that shows even when hidden, by what it takes from the kernels.
    pub gather: f64,
    /// Share of the time of messages between pipeline stages that shows.
    pub stage: f64,
    /// Share of a step that is spent on everything else.
    pub overhead: f64,
}

impl Default for Efficiency {
    fn default() -> Self {
        Efficiency {
            products: None,
            attention: None,
            half_dim: 250.0,
            half_head: 33.0,
            memory: 0.91,
            traffic: 1.3,
            eager: 1.9,
            intra_node: 0.58,
            inter_node: 0.70,
            latency: 2.9e-5,
            launch: 4e-6,
            overlap: 0.83,
            gather: 0.45,
            stage: 0.95,
            overhead: 0.038,
        }
    }
}

impl Efficiency {
    /// Everything at its peak, all communication hidden: no step can be shorter.
    pub fn ideal() -> Self {
        Efficiency {
            products: Some(1.0),
            attention: Some(1.0),
            half_dim: 0.0,
            half_head: 0.0,
            memory: 1.0,
            traffic: 1.0,
            eager: 1.0,
            intra_node: 1.0,
            inter_node: 1.0,
            latency: 0.0,
            launch: 0.0,
            overlap: 1.0,
            gather: 0.0,
            stage: 0.0,
            overhead: 0.0,
        }
    }

    /// The first value that cannot be: its key, what was found, what is allowed.
    pub(super) fn wrong(&self) -> Option<(&'static str, f64, &'static str)> {
        let share = "a share above 0, at most 1";
        let shares = [
            ("products", self.products.unwrap_or(1.0)),
            ("attention", self.attention.unwrap_or(1.0)),
            ("memory", self.memory),
            ("intra_node", self.intra_node),
            ("inter_node", self.inter_node),
        ];
        if let Some((key, found)) = shares.into_iter().find(|(_, v)| !(*v > 0.0 && *v <= 1.0)) {
            return Some((key, found, share));
        }
        let parts = [("overlap", self.overlap), ("gather", self.gather), ("stage", self.stage)];
        if let Some((key, found)) = parts.into_iter().find(|(_, v)| !(0.0..=1.0).contains(v)) {
            return Some((key, found, "a share from 0 to 1"));
        }
        let factors = [("traffic", self.traffic), ("eager", self.eager)];
        if let Some((key, found)) = factors.into_iter().find(|(_, v)| !(*v >= 1.0 && v.is_finite())) {
            return Some((key, found, "a factor from 1"));
        }
        let others = [
            ("half_dim", self.half_dim),
            ("half_head", self.half_head),
            ("latency", self.latency),
            ("launch", self.launch),
            ("overhead", self.overhead),
        ];
        let bad = others.into_iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite()))?;
        Some((bad.0, bad.1, "a number from 0"))
    }
}
