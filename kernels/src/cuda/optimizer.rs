//! Clipping by global norm and AdamW on CUDA, for all tensors at once.

use super::{Argument, Call, Kernel, Launch, MOST, Role, ShapeError, Source, buffer, count, element};
use crate::DType;
use Argument::{Buffer as Named, F32, I32};

/// Elements of a tensor that one block updates.
pub const CHUNK: usize = 8192;
/// Words of a row of the table: addresses of parameter, first moment, second moment, gradient, copy; elements; decays.
pub const TABLE_WORDS: usize = 7;
const THREADS: u32 = 256;

/// What does not change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub betas: [f32; 2],
    pub eps: f32,
    pub weight_decay: f32,
    /// The largest global norm of the gradients.
    pub clip: f32,
}

/// The table `chunks`: tensor and place in it for each block, for tensors of these many elements.
pub fn chunks(elements: &[usize]) -> Vec<[u32; 2]> {
    let of_tensor =
        |(tensor, &n): (usize, &usize)| (0..n.div_ceil(CHUNK)).map(move |c| [tensor as u32, c as u32]);
    elements.iter().enumerate().flat_map(of_tensor).collect()
}

/// One step for `tensors` tensors cut into `n_chunks` chunks ([`chunks`]); gradients are of type `gradient`.
///
/// `table` and `chunks` are written by the host once, `schedule` (learning rate, 1 - beta1^step, 1 - beta2^step) at each
/// step. `table` holds words of 64 bits, here counted as pairs of i32. What the addresses in it name is read and written
/// as well. `norm` holds the global norm and the factor that clipped.
pub fn adamw(step: &AdamW, gradient: DType, tensors: usize, n_chunks: usize) -> Result<Call, ShapeError> {
    count("tensors", tensors, MOST)?;
    let blocks = count("chunks of the optimizer", n_chunks, MOST)?;
    let defines = vec![("GRADIENT", element(gradient)?.to_string()), ("CHUNK", CHUNK.to_string())];
    let launch = |entry, blocks: u32, arguments| Launch {
        kernel: Kernel { source: Source::AdamW, entry, defines: defines.clone() },
        grid: [blocks, 1, 1],
        threads: THREADS,
        shared_bytes: THREADS / 32 * 8,
        arguments,
    };
    let [beta1, beta2] = step.betas;
    Ok(Call {
        buffers: vec![
            buffer("table", DType::I32, tensors * TABLE_WORDS * 2, Role::Input),
            buffer("chunks", DType::I32, n_chunks * 2, Role::Input),
            buffer("schedule", DType::F32, 3, Role::Input),
            buffer("norm", DType::F32, 2, Role::Output),
            buffer("partials", DType::F32, n_chunks, Role::Workspace),
        ],
        launches: vec![
            launch("adamw_norm_partials", blocks, vec![Named("table"), Named("chunks"), Named("partials")]),
            launch(
                "adamw_norm_finish",
                1,
                vec![Named("partials"), Named("norm"), I32(n_chunks as i32), F32(step.clip)],
            ),
            launch(
                "adamw_update",
                blocks,
                vec![
                    Named("table"),
                    Named("chunks"),
                    Named("norm"),
                    Named("schedule"),
                    F32(beta1),
                    F32(beta2),
                    F32(step.eps),
                    F32(step.weight_decay),
                ],
            ),
        ],
    })
}
