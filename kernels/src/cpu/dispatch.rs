//! From a [`Call`] to the library kernel that executes it.

use super::attention::RelAttention;
use super::embedding::{Gather, ScatterAdd};
use super::gemm;
use super::head::{self, Head};
use super::scratch;
use crate::DType;
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
        Call::Grouped { kernels: ref group } => {
            smallvec![group_tasks(group.iter().map(|&k| &kernels[k as usize])).len()]
        }
        Call::Gemm(gemm) | Call::GemmSquares(gemm) => gemm.phases(),
        Call::RelAttentionForward(attention) => attention.forward_phases(),
        Call::RelAttentionBackward(attention) => attention.backward_phases(),
        Call::Head(head) => head.phases(),
        Call::Gather { rows, width, vocab } => Gather { rows, width, vocab }.phases(),
        Call::ScatterAdd { rows, width, vocab, accumulate } => {
            ScatterAdd { rows, width, vocab, accumulate }.phases()
        }
        Call::Copy { bytes } => smallvec![bytes.div_ceil(COPY_BYTES_PER_TASK) as usize],
    }
}

/// Rows that one task of a group takes: of which kernel of the group, from where to where.
pub type Share = (usize, u64, u64);

/// The tasks of a group: the tasks of each kernel, small ones of neighbours together.
pub fn group_tasks<'a>(kernels: impl Iterator<Item = &'a GeneratedKernel>) -> Vec<Vec<Share>> {
    let mut tasks: Vec<Vec<Share>> = Vec::new();
    // Of a task's work, what the last task can still take.
    let mut room = 0.0;
    for (index, kernel) in kernels.enumerate() {
        let step = kernel.rows_per_task.max(1);
        for begin in (0..kernel.rows).step_by(step as usize) {
            let end = (begin + step).min(kernel.rows);
            let work = (end - begin) as f64 / step as f64;
            match tasks.last_mut() {
                Some(last) if work <= room => last.push((index, begin, end)),
                _ => {
                    tasks.push(vec![(index, begin, end)]);
                    room = 1.0;
                }
            }
            room -= work;
        }
    }
    tasks
}

/// Element type and least number of elements of each argument of a library call, in order; `None` for a generated
/// kernel, whose arguments only its code knows. The call is of a program that passed
/// [`check_sizes`](crate::program::Program::check_sizes).
pub fn arguments(call: &Call) -> Option<SmallVec<[(DType, usize); 12]>> {
    let all_f32 = |counts: &[usize]| counts.iter().map(|&count| (DType::F32, count)).collect();
    Some(match *call {
        Call::Generated { .. } | Call::Grouped { .. } => return None,
        Call::Gemm(gemm) => all_f32(&gemm.extents()),
        Call::GemmSquares(gemm) => {
            let [a, b, c] = gemm.extents();
            all_f32(&[a, b, c, gemm.phases()[0]])
        }
        Call::RelAttentionForward(attention) | Call::RelAttentionBackward(attention) => {
            let RelAttention { batch, seq, heads, d_head } = attention;
            let (out, rel, bias, lse) =
                (batch * seq * heads * d_head, seq * heads * d_head, heads * d_head, batch * heads * seq);
            if matches!(call, Call::RelAttentionForward(_)) {
                all_f32(&[3 * out, rel, bias, bias, out, lse, attention.forward_workspace()])
            } else {
                let workspace = attention.backward_workspace();
                all_f32(&[3 * out, rel, bias, bias, out, lse, out, 3 * out, rel, bias, bias, workspace])
            }
        }
        Call::Head(head) => {
            let Head { rows, width, vocab, .. } = head;
            let f32s = |count: usize| (DType::F32, count);
            let mut list = smallvec![f32s(rows * width), f32s(vocab * width), (DType::I32, rows), f32s(1)];
            if head.gradients {
                list.extend([f32s(rows * width), f32s(vocab * width)]);
            }
            list.push(f32s(head.workspace()));
            list
        }
        Call::Gather { rows, width, vocab } => {
            smallvec![(DType::F32, vocab * width), (DType::I32, rows), (DType::F32, rows * width)]
        }
        Call::ScatterAdd { rows, width, vocab, .. } => {
            smallvec![(DType::I32, rows), (DType::F32, rows * width), (DType::F32, vocab * width)]
        }
        // Copies move bytes of any type; the executor compares bytes.
        Call::Copy { bytes } => smallvec![(DType::Bool, bytes as usize), (DType::Bool, bytes as usize)],
    })
}

/// Bytes of scratch that a thread takes for tasks of a library call: of the kernel's own, and for packed operands of
/// products. Generated kernels take none.
pub fn scratch_bytes(call: &Call) -> (usize, [usize; 2]) {
    match *call {
        Call::Generated { .. } | Call::Grouped { .. } => (0, [0, 0]),
        Call::Gemm(gemm) | Call::GemmSquares(gemm) => (0, gemm.packing_bytes()),
        Call::RelAttentionForward(attention) => (attention.forward_scratch_bytes(), [0, 0]),
        Call::RelAttentionBackward(attention) => (attention.backward_scratch_bytes(), [0, 0]),
        Call::Head(head) => (head.scratch_bytes(), head.packing_bytes()),
        Call::Gather { .. } | Call::ScatterAdd { .. } | Call::Copy { .. } => (0, [0, 0]),
    }
}

/// Makes room on this thread for so much scratch, so that no call that needs no more grows it.
pub fn reserve_scratch(kernels: usize, packing: [usize; 2]) {
    scratch::reserve(kernels);
    gemm::reserve_packing(packing);
}

/// Runs one task of a library call on the calling thread. Generated kernels are the executor's: it owns their code.
///
/// # Safety
/// `args` must be the call's arguments ([`arguments`]), valid and disjoint as each kernel asks, with every index
/// of a gather or scatter within its vocabulary; `phase` and `task` must be within [`phases`], and every task of the
/// phases before must have finished.
pub unsafe fn run_library(call: &Call, phase: usize, task: usize, args: &[*mut u8]) {
    let f32s = |i: usize| args[i].cast::<f32>();
    // SAFETY: the caller's, call by call.
    unsafe {
        match *call {
            Call::Generated { .. } | Call::Grouped { .. } => {
                unreachable!("generated kernels do not come here")
            }
            Call::Gemm(gemm) => gemm.run(phase, task, f32s(0), f32s(1), f32s(2)),
            Call::GemmSquares(gemm) => {
                gemm.run(phase, task, f32s(0), f32s(1), f32s(2));
                *f32s(3).add(task) = gemm.sum_of_squares(task, f32s(2));
            }
            Call::RelAttentionForward(attention) => attention.forward(phase, task, std::array::from_fn(f32s)),
            Call::RelAttentionBackward(attention) => {
                attention.backward(phase, task, std::array::from_fn(f32s))
            }
            Call::Head(head) => {
                // Without gradients there are neither dh nor dtable among the arguments.
                let [dh, dtable, workspace] = if head.gradients { [4, 5, 6] } else { [4, 4, 4] };
                let args = head::Args {
                    h: f32s(0),
                    table: f32s(1),
                    targets: args[2].cast(),
                    loss: f32s(3),
                    dh: f32s(dh),
                    dtable: f32s(dtable),
                    workspace: f32s(workspace),
                };
                head.run(phase, task, args);
            }
            Call::Gather { rows, width, vocab } => {
                Gather { rows, width, vocab }.run(phase, task, f32s(0), args[1].cast(), f32s(2));
            }
            Call::ScatterAdd { rows, width, vocab, accumulate } => {
                let call = ScatterAdd { rows, width, vocab, accumulate };
                call.run(phase, task, args[0].cast(), f32s(1), f32s(2));
            }
            Call::Copy { bytes } => {
                let start = task as u64 * COPY_BYTES_PER_TASK;
                let len = COPY_BYTES_PER_TASK.min(bytes - start) as usize;
                args[1].add(start as usize).copy_from_nonoverlapping(args[0].add(start as usize), len);
            }
        }
    }
}
