//! What one GPU holds, by kind: activations from the compiler's memory plan of one rank's graph, the rest from counts.
//!
//! A rank of t tensor-parallel GPUs has a t-th of the heads, of the feed-forward layer and of the vocabulary: a smaller
//! model, which the compiler plans as any other. Layers repeat and sequences are alike, so bytes are linear in each: the
//! plans of 2 and 3 layers with 2 and 4 sequences give all others. Our programs hold f32; a bf16 activation is half of
//! that. With sequence parallelism every activation is split, and a rank has a t-th of the whole model's.

use super::layout::{Layout, Recompute};
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::count::parameters;
use isoflop_compiler::driver::{CompileError, plan_program};
use isoflop_compiler::memory::alive::working_peak;
use serde::Serialize;

/// Bytes of one GPU at the moment that takes most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// bf16 weights.
    pub weights: u64,
    /// f32 gradients.
    pub gradients: u64,
    /// f32 master weights and both moments.
    pub optimizer: u64,
    /// Kept for the backward pass, of all micro-batches under way.
    pub activations: u64,
    /// Temporaries and workspace of kernels, and weights gathered for the layer at work.
    pub buffers: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.buffers
    }
}

/// Bytes of a parameter that stay from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateBytes {
    pub weights: f64,
    pub gradients: f64,
    pub optimizer: f64,
}

impl StateBytes {
    /// bf16 weights, f32 gradients, and the optimiser's f32 master weights and moments: 18.
    pub const MIXED: StateBytes = StateBytes { weights: 2.0, gradients: 4.0, optimizer: 12.0 };

    /// What each of `copies` holds of so many parameters, where ZeRO shares out the optimiser (1), gradients too (2), weights
    /// too (3) or nothing (0). Rajbhandari et al. 2020, figure 1.
    pub fn shared(&self, parameters: f64, zero: u8, copies: usize) -> StateBytes {
        let of = |bytes: f64, from: u8| parameters * bytes / if zero >= from { copies as f64 } else { 1.0 };
        StateBytes {
            weights: of(self.weights, 3),
            gradients: of(self.gradients, 2),
            optimizer: of(self.optimizer, 1),
        }
    }

    pub fn total(&self) -> f64 {
        self.weights + self.gradients + self.optimizer
    }
}

/// Bytes that are linear in layers and in sequences.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Linear {
    base: f64,
    layer: f64,
    sequence: f64,
    both: f64,
}

impl Linear {
    /// From the bytes of (2, 2), (3, 2), (2, 4) and (3, 4) layers and sequences.
    fn through([a, b, c, d]: [f64; 4]) -> Linear {
        let both = (d - b - c + a) / 2.0;
        let (layer, sequence) = (b - a - 2.0 * both, (c - a) / 2.0 - 2.0 * both);
        Linear { base: a - 2.0 * layer - 2.0 * sequence - 4.0 * both, layer, sequence, both }
    }

    fn at(&self, layers: f64, sequences: f64) -> f64 {
        (self.base + self.layer * layers + self.sequence * sequences + self.both * layers * sequences)
            .max(0.0)
    }
}

/// The memory of a model's ranks: f32 bytes of activations, and of what kernels need beside them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankMemory {
    activations: Linear,
    buffers: Linear,
}

/// The model that one of `tensor` GPUs holds.
fn rank(model: &ModelConfig, tensor: usize) -> ModelConfig {
    ModelConfig {
        n_heads: model.n_heads / tensor,
        d_ff: model.d_ff / tensor,
        vocab_size: model.vocab_size / tensor,
        ..model.clone()
    }
}

impl RankMemory {
    /// Plans the graphs of one rank.
    ///
    /// # Errors
    /// When the compiler refuses the model.
    pub fn of(model: &ModelConfig, tensor: usize) -> Result<RankMemory, CompileError> {
        let mut activations = [0.0; 4];
        let mut buffers = [0.0; 4];
        for (i, (layers, sequences)) in [(2, 2), (3, 2), (2, 4), (3, 4)].into_iter().enumerate() {
            let rank = ModelConfig { n_layers: layers, ..rank(model, tensor) };
            let plan = plan_program(&rank, &StepConfig::new(sequences))?;
            let (kept, others) = working_peak(&plan.train);
            activations[i] = kept as f64;
            buffers[i] = others as f64;
        }
        Ok(RankMemory { activations: Linear::through(activations), buffers: Linear::through(buffers) })
    }
}

/// What a GPU of this layout holds. `whole` is the memory of the model's whole ranks, `split` of `layout.tensor` ones.
pub fn memory(model: &ModelConfig, layout: &Layout, whole: &RankMemory, split: &RankMemory) -> Memory {
    let [t, p, v] = [layout.tensor, layout.pipeline, layout.interleave].map(|x| x as f64);
    let count = parameters(model);
    let layers = model.n_layers as f64 / p;
    let embedding = count.embedding as f64 / t;
    let all = count.total() as f64 - count.embedding as f64;
    // The first stage has the embedding, and so has the last one, which needs it for the head.
    let held = all / (p * t) + embedding;
    let state = StateBytes::MIXED.shared(held, layout.zero, layout.data);

    // Activations of a stage's layers for one micro-batch, halved to bf16.
    let sequences = layout.micro_batch as f64;
    let kept = |layers: f64| {
        let f32_bytes = if layout.sequence_parallel {
            whole.activations.at(layers, sequences) / t
        } else {
            split.activations.at(layers, sequences)
        };
        f32_bytes / 2.0
    };
    let input = 2.0 * sequences * (model.seq_len * model.d_model) as f64
        / if layout.sequence_parallel { t } else { 1.0 };
    // One forward, one backward: the first stage has as many micro-batches under way as there are stages, and with
    // interleaving some of the next round (Korthikanti et al. 2022, section 4.2.3).
    let rounds = if layout.interleave > 1 { p * (1.0 + (p - 1.0) / (p * v)) } else { p };
    let under_way = rounds.min(layout.accumulation as f64);
    let activations = match layout.recompute {
        Recompute::None | Recompute::Selective => kept(layers) * under_way,
        Recompute::Full => input * layers * under_way + kept(1.0),
    };
    // Two layers' weights at a time are whole where weights are shared out.
    let gathered = if layout.zero == 3 { 2.0 * 2.0 * all / model.n_layers as f64 / t } else { 0.0 };
    let of_kernels = split.buffers.at(layers.max(1.0), sequences);
    let bytes = |x: f64| x.max(0.0).round() as u64;
    Memory {
        weights: bytes(state.weights),
        gradients: bytes(state.gradients),
        optimizer: bytes(state.optimizer),
        activations: bytes(activations),
        buffers: bytes(of_kernels + gathered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any number of layers and sequences, as the compiler itself plans them.
    #[test]
    fn two_and_three_layers_say_what_more_hold() {
        let model = ModelConfig::gopher(8, 16, 32, 512, 32_000, 512);
        let linear = RankMemory::of(&model, 1).unwrap();
        for (layers, sequences) in [(8, 4), (5, 3), (12, 8)] {
            let deep = ModelConfig { n_layers: layers, ..model.clone() };
            let plan = plan_program(&deep, &StepConfig::new(sequences)).unwrap();
            let (kept, others) = working_peak(&plan.train);
            let (l, s) = (layers as f64, sequences as f64);
            let found = [linear.activations.at(l, s), linear.buffers.at(l, s)];
            let (planned, found) = ((kept + others) as f64, found[0] + found[1]);
            assert!((found / planned - 1.0).abs() < 0.02, "{layers} x {sequences}: {found} {planned}");
        }
    }

    fn layout() -> Layout {
        Layout {
            data: 4,
            tensor: 1,
            sequence_parallel: false,
            pipeline: 1,
            interleave: 1,
            zero: 0,
            recompute: Recompute::None,
            micro_batch: 2,
            accumulation: 2,
        }
    }

    #[test]
    fn state_is_eighteen_bytes_a_parameter_and_sharding_divides_it() {
        let model = ModelConfig::gopher(4, 4, 32, 128, 1_024, 128);
        let whole = RankMemory::of(&model, 1).unwrap();
        let n = parameters(&model).total() as f64;
        let state = |zero: u8| {
            let m = memory(&model, &Layout { zero, ..layout() }, &whole, &whole);
            (m.weights + m.gradients + m.optimizer) as f64
        };
        // Rajbhandari et al. 2020: 18 = 2 + 4 + 12; sharded 6 + 12/d, 2 + 16/d, 18/d.
        for (zero, bytes) in [(0, 18.0), (1, 6.0 + 12.0 / 4.0), (2, 2.0 + 16.0 / 4.0), (3, 18.0 / 4.0)] {
            assert!((state(zero) / (n * bytes) - 1.0).abs() < 1e-6, "zero {zero}");
        }
    }

    #[test]
    fn recomputation_stages_and_tensors_save_memory() {
        let model = ModelConfig::gopher(8, 8, 64, 512, 32_000, 512);
        let whole = RankMemory::of(&model, 1).unwrap();
        let split = RankMemory::of(&model, 4).unwrap();
        let of = |l: &Layout, s: &RankMemory| memory(&model, l, &whole, s).activations;
        let plain = of(&layout(), &whole);
        let full = of(&Layout { recompute: Recompute::Full, ..layout() }, &whole);
        assert!(full * 3 < plain, "{full} {plain}");
        let tensor = Layout { tensor: 4, data: 1, ..layout() };
        let (replicated, sequence) =
            (of(&tensor, &split), of(&Layout { sequence_parallel: true, ..tensor }, &split));
        assert!(sequence < replicated && replicated < plain, "{sequence} {replicated} {plain}");
        // Two stages hold half the layers each and two micro-batches under way: as much as one.
        let staged = of(&Layout { pipeline: 2, data: 2, ..layout() }, &whole) as f64;
        assert!((0.9..1.2).contains(&(staged / plain as f64)), "{staged} {plain}");
    }
}
