//! All the ways in which a training run can be spread over GPUs.

use super::transformer::Transformer;
pub use isoflop_runtime::layout::{Layout, Recompute};
use serde::{Deserialize, Serialize};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// In tiles that never leave the chip, over the causal half.
    Fused,
    /// By products and a softmax over whole scores.
    Scores,
}

/// How elementwise operations are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    Fused,
    Eager,
}

/// Micro-batches that are tried.
const MICRO_BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// How many GPUs of a node can share a layer: powers of two that divide heads, feed-forward layer and vocabulary.
pub fn tensors(model: &Transformer, gpus_per_node: usize) -> impl Iterator<Item = usize> + use<> {
    let shared = [model.n_heads, model.d_ff, model.vocab_size];
    let powers = (0..).map(|i| 1usize << i).take_while(move |t| *t <= gpus_per_node);
    powers.filter(move |t| shared.iter().all(|whole| whole.is_multiple_of(*t)))
}

/// Every layout of `batch` sequences a step on exactly `gpus` GPUs: tensor parallelism within a node over whole heads,
/// stages of equally many layers, whole micro-batches. Memory is not looked at.
pub fn layouts(model: &Transformer, batch: usize, gpus: usize, gpus_per_node: usize) -> Vec<Layout> {
    let mut found = Vec::new();
    let divides = |a: usize, b: usize| b.is_multiple_of(a);
    for tensor in tensors(model, gpus_per_node).filter(|&t| divides(t, gpus)) {
        let stages = (1..=model.n_layers.min(64)).filter(|&p| divides(p, model.n_layers));
        for pipeline in stages.filter(|p| divides(tensor * p, gpus)) {
            let data = gpus / (tensor * pipeline);
            for micro_batch in MICRO_BATCHES {
                if !divides(data * micro_batch, batch) {
                    continue;
                }
                let accumulation = batch / (data * micro_batch);
                for interleave in interleaves(model.n_layers / pipeline, pipeline, accumulation) {
                    for zero in [0, 1, 2, 3] {
                        let useful = match zero {
                            0 => true,
                            // Gradients that are shared out are sent after every micro-batch, so pipelines do not.
                            1 => data > 1,
                            _ => data > 1 && pipeline == 1,
                        };
                        if !useful {
                            continue;
                        }
                        found.extend([Recompute::None, Recompute::Full].map(|recompute| Layout {
                            data,
                            tensor,
                            sequence_parallel: tensor > 1,
                            pipeline,
                            interleave,
                            zero,
                            recompute,
                            micro_batch,
                            accumulation,
                        }));
                    }
                }
            }
        }
    }
    found
}

/// Pieces of a stage: one, or the most that divide it, where micro-batches come in rounds of the stages.
fn interleaves(layers: usize, pipeline: usize, accumulation: usize) -> Vec<usize> {
    if pipeline == 1 || layers == 1 || !accumulation.is_multiple_of(pipeline) {
        return vec![1];
    }
    let most = (2..=layers.min(8)).rev().find(|v| layers.is_multiple_of(*v));
    std::iter::once(1).chain(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isoflop_compiler::config::ModelConfig;

    #[test]
    fn layouts_use_all_gpus_and_the_whole_batch() {
        let model = Transformer::from(&ModelConfig::gopher(80, 128, 128, 16_384, 32_000, 2_048));
        let found = layouts(&model, 1_536, 512, 8);
        assert!(found.len() > 100, "{}", found.len());
        for l in &found {
            assert_eq!(l.gpus(), 512, "{l}");
            assert_eq!(l.data * l.micro_batch * l.accumulation, 1_536, "{l}");
            assert!(80 % (l.pipeline * l.interleave) == 0 && l.tensor <= 8, "{l}");
            assert!(l.zero < 2 || l.pipeline == 1, "{l}");
        }
        let distinct: std::collections::HashSet<&Layout> = found.iter().collect();
        assert_eq!(distinct.len(), found.len());
        assert!(layouts(&model, 1_535, 512, 8).is_empty(), "1535 sequences cannot be shared by 512 GPUs");
    }

    #[test]
    fn heads_bound_tensor_parallelism() {
        let model = Transformer::from(&ModelConfig::gopher(12, 12, 64, 768, 32_000, 2_048));
        assert!(layouts(&model, 128, 8, 8).iter().all(|l| l.tensor <= 4));
    }
}
