//! From a [`Call`] to the library kernel that executes it.

use super::embedding::{Gather, ScatterAdd};
use crate::program::{Call, GeneratedKernel};
use smallvec::{SmallVec, smallvec};

/// Bytes that one task of a copy moves.
const COPY_BYTES_PER_TASK: u64 = 1 << 18;

/// Independent tasks of each phase of a call; a barrier stands between phases. `kernels` are the program's.
///
/// # Panics
/// If a generated call names a kernel that the program does not have; the executor checks this when it loads.
pub fn phases(call: &Call, kernels: &[GeneratedKernel]) -> SmallVec<[usize; 4]> {
    match *call {
        Call::Generated { kernel } => smallvec![kernels[kernel as usize].tasks()],
        Call::Gemm(gemm) => gemm.phases(),
        Call::RelAttentionForward(attention) => attention.forward_phases(),
        Call::RelAttentionBackward(attention) => attention.backward_phases(),
        Call::Gather { rows, width, vocab } => Gather { rows, width, vocab }.phases(),
        Call::ScatterAdd { rows, width, vocab } => ScatterAdd { rows, width, vocab }.phases(),
        Call::Copy { bytes } => smallvec![bytes.div_ceil(COPY_BYTES_PER_TASK) as usize],
    }
}

/// Number of arguments of a library call; a generated kernel says its own.
pub fn n_args(call: &Call, kernels: &[GeneratedKernel]) -> usize {
    match *call {
        Call::Generated { kernel } => kernels[kernel as usize].n_args as usize,
        Call::Gemm(_) | Call::Gather { .. } | Call::ScatterAdd { .. } => 3,
        Call::RelAttentionForward(_) => 7,
        Call::RelAttentionBackward(_) => 12,
        Call::Copy { .. } => 2,
    }
}

/// Runs one task of a library call on the calling thread. Generated kernels are the executor's: it owns their code.
///
/// # Safety
/// `args` must be the call's arguments ([`n_args`] of them), valid and disjoint as each kernel asks, with every index
/// of a gather or scatter within its vocabulary; `phase` and `task` must be within [`phases`], and every task of the
/// phases before must have finished.
pub unsafe fn run_library(call: &Call, phase: usize, task: usize, args: &[*mut u8]) {
    let f32s = |i: usize| args[i].cast::<f32>();
    // SAFETY: the caller's, call by call.
    unsafe {
        match *call {
            Call::Generated { .. } => unreachable!("generated kernels do not come here"),
            Call::Gemm(gemm) => gemm.run(phase, task, f32s(0), f32s(1), f32s(2)),
            Call::RelAttentionForward(attention) => attention.forward(phase, task, std::array::from_fn(f32s)),
            Call::RelAttentionBackward(attention) => {
                attention.backward(phase, task, std::array::from_fn(f32s))
            }
            Call::Gather { rows, width, vocab } => {
                Gather { rows, width, vocab }.run(phase, task, f32s(0), args[1].cast(), f32s(2));
            }
            Call::ScatterAdd { rows, width, vocab } => {
                ScatterAdd { rows, width, vocab }.run(phase, task, args[0].cast(), f32s(1), f32s(2));
            }
            Call::Copy { bytes } => {
                let start = task as u64 * COPY_BYTES_PER_TASK;
                let len = COPY_BYTES_PER_TASK.min(bytes - start) as usize;
                args[1].add(start as usize).copy_from_nonoverlapping(args[0].add(start as usize), len);
            }
        }
    }
}
