//! Seconds of a training step on many GPUs, from the sizes of its products, the bytes that it moves and the links between
//! them.
//!
//! A product takes its FLOPs over the share of the peak that a matrix of its sides reaches, or its bytes over the
//! bandwidth. Elementwise work takes its bytes. Collectives are rings: an all-reduce of B bytes among n moves 2 (n-1)/n B
//! (Thakur et al. 2005). A pipeline of p stages with v pieces each is idle for (p-1)/v micro-batches (Narayanan et al.
//! 2021). Every factor that is not arithmetic is a value of [`Efficiency`].

use super::efficiency::Efficiency;
use super::layout::{Attention, Kernels, Layout, Recompute};
use super::transformer::Transformer;
use serde::{Deserialize, Serialize};

/// A GPU and its links. Rates a second; bandwidths in bytes, per GPU and direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// FLOP/s of dense bf16 products.
    pub peak: f64,
    pub memory_bandwidth: f64,
    pub memory_bytes: f64,
    pub gpus_per_node: usize,
    pub intra_node: f64,
    pub inter_node: f64,
    /// Shares of the peak, where [`Efficiency`] gives none.
    pub products: f64,
    pub attention: f64,
}

/// What the training program is like, whatever its layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Software {
    pub attention: Attention,
    pub kernels: Kernels,
    /// Communication runs beside work.
    pub overlaps: bool,
    /// Bytes of a gradient when it is sent.
    pub gradient_bytes: f64,
}

impl Software {
    /// What isoflop's own programs are: fused, f32 gradients.
    pub const OURS: Software = Software {
        attention: Attention::Fused,
        kernels: Kernels::Fused,
        overlaps: true,
        gradient_bytes: 4.0,
    };
}

/// Seconds of one step by what they are spent on; their sum is the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// Layers forward and backward, recomputation included.
    pub layers: f64,
    /// Logits and loss.
    pub head: f64,
    pub optimizer: f64,
    /// Communication that shows: of tensor, data and pipeline parallelism.
    pub tensor: f64,
    pub data: f64,
    pub pipeline: f64,
    /// Idle because stages wait for each other.
    pub bubble: f64,
    /// Everything else.
    pub overhead: f64,
}

impl StepTime {
    pub fn seconds(&self) -> f64 {
        self.layers
            + self.head
            + self.optimizer
            + self.tensor
            + self.data
            + self.pipeline
            + self.bubble
            + self.overhead
    }
}

/// Seconds of a step of `model` in this layout.
pub fn step_time(
    model: &Transformer,
    layout: &Layout,
    machine: &Machine,
    software: &Software,
    efficiency: &Efficiency,
) -> StepTime {
    let rates = Rates::new(machine, efficiency);
    let layer = Layer::of(model, layout, software, &rates);
    let t = layout.tensor as f64;
    let [p, v, m] = [layout.pipeline, layout.interleave, layout.accumulation].map(|x| x as f64);
    let positions = (layout.micro_batch * model.seq_len) as f64;
    let d = model.d_model as f64;
    let stage_layers = model.n_layers as f64 / p;

    let hidden = if software.overlaps { efficiency.overlap } else { 0.0 };
    // bf16 activations between layers.
    let activation = 2.0 * positions * d;
    let tensor = if layout.tensor > 1 {
        let link = if layout.tensor <= machine.gpus_per_node { rates.intra } else { rates.inter };
        let all_reduce = 2.0 * (t - 1.0) / t * activation / link + 2.0 * efficiency.latency;
        let times = if layout.recompute == Recompute::Full { 6.0 } else { 4.0 };
        times * all_reduce * (1.0 - if layout.sequence_parallel { hidden } else { 0.0 })
    } else {
        0.0
    };

    let logits = model.vocab_size as f64 / t;
    let head = rates.both(positions, logits, d) + 20.0 * positions * logits / rates.memory;
    let work = stage_layers * layer.seconds(layout.recompute) + head;
    let micro_batch = work + stage_layers * tensor;
    let pipeline = if layout.pipeline > 1 {
        let near = layout.tensor * layout.pipeline <= machine.gpus_per_node;
        let link = if near { rates.intra } else { rates.inter };
        let message = 2.0 * activation / t / link + 2.0 * efficiency.latency;
        message * (v * m * efficiency.stage + p - 1.0)
    } else {
        0.0
    };

    let weights = (model.n_layers as f64 * model.layer_weights() + model.table_weights()) / (p * t);
    let data = data_parallel(layout, machine, software, efficiency, &rates, weights, micro_batch);
    let shards = if layout.zero >= 1 { layout.data as f64 } else { 1.0 };
    // Master weights and both moments are read and written in f32, a gradient read, a bf16 weight written.
    let optimizer = (weights / shards * 30.0 + weights * 4.0) / rates.memory;

    let mut time = StepTime {
        layers: m * stage_layers * layer.seconds(layout.recompute),
        head: m * head,
        optimizer,
        tensor: m * stage_layers * tensor,
        data,
        pipeline,
        bubble: (p - 1.0) / v * micro_batch,
        overhead: 0.0,
    };
    time.overhead = time.seconds() * efficiency.overhead;
    time
}

/// Seconds of gathering and reducing what the copies of the model share, as far as they show.
fn data_parallel(
    layout: &Layout,
    machine: &Machine,
    software: &Software,
    efficiency: &Efficiency,
    rates: &Rates,
    weights: f64,
    micro_batch: f64,
) -> f64 {
    if layout.data == 1 {
        return 0.0;
    }
    // Copies within a node: their rings use the network cards of all of them.
    let near = (machine.gpus_per_node / layout.tensor).clamp(1, layout.data) as f64;
    let one_node = layout.gpus() <= machine.gpus_per_node;
    let link = if one_node { rates.intra } else { (rates.inter * near).min(rates.intra) };
    let share = (layout.data as f64 - 1.0) / layout.data as f64;
    let (m, hidden) = (layout.accumulation as f64, if software.overlaps { efficiency.overlap } else { 0.0 });
    let (bf16, gradient) = (2.0, software.gradient_bytes);
    match layout.zero {
        // Weights are gathered forward and backward, gradients scattered, for every micro-batch.
        3 => {
            let each = weights * (2.0 * bf16 + gradient) * share / link;
            m * ((each - micro_batch * hidden).max(0.0) + each * efficiency.gather)
        }
        2 => {
            let (scatter, gather) = (weights * gradient * share / link, weights * bf16 * share / link);
            m * ((scatter - micro_batch * hidden).max(0.0) + scatter * efficiency.gather)
                + gather * (1.0 - hidden)
        }
        1 => weights * (gradient + bf16) * share / link * (1.0 - hidden),
        _ => weights * 2.0 * gradient * share / link * (1.0 - hidden),
    }
}

/// What a GPU reaches.
struct Rates<'e> {
    products: f64,
    attention: f64,
    memory: f64,
    intra: f64,
    inter: f64,
    efficiency: &'e Efficiency,
}

impl<'e> Rates<'e> {
    fn new(machine: &Machine, efficiency: &'e Efficiency) -> Self {
        Rates {
            products: machine.peak * efficiency.products.unwrap_or(machine.products),
            attention: machine.peak * efficiency.attention.unwrap_or(machine.attention),
            memory: machine.memory_bandwidth * efficiency.memory,
            intra: machine.intra_node * efficiency.intra_node,
            inter: machine.inter_node * efficiency.inter_node,
            efficiency,
        }
    }

    /// Seconds of a bf16 product of m x k by k x n.
    fn product(&self, m: f64, n: f64, k: f64) -> f64 {
        let reached = |side: f64| side / (side + self.efficiency.half_dim);
        let flops = 2.0 * m * n * k / (self.products * reached(m) * reached(n) * reached(k));
        let bytes = 2.0 * (m * n + m * k + n * k) / self.memory;
        flops.max(bytes) + self.efficiency.launch
    }

    /// The two products of its backward pass.
    fn backward(&self, m: f64, n: f64, k: f64) -> f64 {
        self.product(m, k, n) + self.product(n, k, m)
    }

    fn both(&self, m: f64, n: f64, k: f64) -> f64 {
        self.product(m, n, k) + self.backward(m, n, k)
    }
}

/// Seconds of one layer and micro-batch on one GPU.
struct Layer {
    forward: f64,
    backward: f64,
    /// Part of `forward` that selective recomputation repeats.
    scores: f64,
}

impl Layer {
    fn of(model: &Transformer, layout: &Layout, software: &Software, rates: &Rates) -> Layer {
        let t = layout.tensor as f64;
        let (d, d_head) = (model.d_model as f64, model.d_head as f64);
        let positions = (layout.micro_batch * model.seq_len) as f64;
        let products = [
            (positions, model.d_qkv() / t, d),
            (positions, d, model.d_attn() / t),
            (positions, model.d_up() / t, d),
            (positions, d, model.d_ff as f64 / t),
        ];
        let mut forward: f64 = products.iter().map(|&(m, n, k)| rates.product(m, n, k)).sum();
        let mut backward: f64 = products.iter().map(|&(m, n, k)| rates.backward(m, n, k)).sum();
        if model.relative {
            // W_r r: the table of positions is not trained, so one product forward and one backward.
            let (seq_len, d_attn) = (model.seq_len as f64, model.d_attn() / t);
            forward += rates.product(seq_len, d_attn, d);
            backward += rates.product(d, d_attn, seq_len);
        }

        let pairs = layout.micro_batch as f64 * model.n_heads as f64 / t * (model.seq_len as f64).powi(2);
        let terms = if model.relative { 1.5 } else { 1.0 };
        let (scores, scores_backward) = match software.attention {
            // Half the pairs; backward computes the scores again: five products for two.
            Attention::Fused => {
                let forward = terms * 2.0 * pairs * d_head / rates.attention;
                (forward, 2.5 * forward)
            }
            Attention::Scores => {
                let rate = rates.products * d_head / (d_head + rates.efficiency.half_head);
                let forward = terms * 4.0 * pairs * d_head / rate;
                // bf16 scores written, read and written by the softmax and by dropout with its mask, and read.
                let (bytes, bytes_backward) = (13.0 * terms * pairs, 17.0 * terms * pairs);
                (forward + bytes / rates.memory, 2.0 * forward + bytes_backward / rates.memory)
            }
        };

        // bf16 bytes of elementwise work: norms and residuals over d_model, the nonlinearity, heads set in order.
        let residual = 2.0 * positions * d / if layout.sequence_parallel { t } else { 1.0 };
        let feed_forward = 2.0 * positions * model.d_ff as f64 / t * if model.gated { 1.5 } else { 1.0 };
        let heads = 2.0 * positions * model.d_qkv() / t;
        let eager = if software.kernels == Kernels::Eager { rates.efficiency.eager } else { 1.0 };
        let traffic = rates.efficiency.traffic * eager / rates.memory;
        forward += scores + (10.0 * residual + 2.0 * feed_forward + 1.5 * heads) * traffic;
        backward += scores_backward + (10.0 * residual + 3.0 * feed_forward + 1.5 * heads) * traffic;
        let kept = software.attention == Attention::Scores;
        Layer { forward, backward, scores: if kept { scores } else { 0.0 } }
    }

    fn seconds(&self, recompute: Recompute) -> f64 {
        self.forward
            + self.backward
            + match recompute {
                Recompute::None => 0.0,
                Recompute::Selective => self.scores,
                Recompute::Full => self.forward,
            }
    }
}
