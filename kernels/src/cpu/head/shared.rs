//! One chunk after another, each product cut into tasks: large vocabularies.

use super::{Args, Head, Softmax};
use crate::cpu::gemm::Gemm;
use crate::cpu::simd::Level;
use smallvec::SmallVec;

/// Floats of logits that one softmax task takes: some tens of microseconds.
const SOFTMAX_FLOATS: usize = 1 << 17;

fn softmax_rows(head: &Head) -> usize {
    (SOFTMAX_FLOATS / head.vocab.max(1)).max(1)
}

fn tasks_of(g: &Gemm) -> usize {
    g.phases().iter().sum()
}

/// For each chunk logits, softmax, and with gradients the products; in the last phase of all one task more: the mean loss.
pub fn phases(head: &Head) -> SmallVec<[usize; 4]> {
    let mut phases = SmallVec::new();
    for chunk in 0..head.chunks() {
        let rows = head.chunk_rows(chunk).len();
        phases.push(tasks_of(&head.logits(rows)));
        phases.push(rows.div_ceil(softmax_rows(head)));
        if head.gradients {
            phases.push(tasks_of(&head.dh(rows)) + tasks_of(&head.dtable(rows, chunk > 0)));
        }
    }
    match phases.last_mut() {
        Some(last) if head.gradients => *last += 1,
        _ => phases.push(1),
    }
    phases
}

/// The logits of one chunk.
pub fn workspace(head: &Head) -> usize {
    head.chunk.min(head.rows) * head.stride()
}

/// # Safety
/// As [`Head::run`].
pub unsafe fn run(head: &Head, level: Level, phase: usize, task: usize, args: Args) {
    let steps = if head.gradients { 3 } else { 2 };
    let chunk = phase / steps;
    if chunk == head.chunks() {
        // SAFETY: all rows have their loss.
        return unsafe { head.mean_loss(args) };
    }
    let rows = head.chunk_rows(chunk);
    // SAFETY: rows are in range, and the chunk's logits stand behind the losses; the caller's promise.
    unsafe {
        let logits = args.workspace.add(head.losses());
        let h = args.h.add(rows.start * head.width);
        match phase % steps {
            0 => head.logits(rows.len()).run(0, task, h, args.table, logits),
            1 => {
                let first = task * softmax_rows(head);
                let last = (first + softmax_rows(head)).min(rows.len());
                let logits = logits.add(first * head.stride());
                level.run(Softmax { head, logits, rows: rows.start + first..rows.start + last, args });
            }
            _ => {
                let (dh, dtable) = (head.dh(rows.len()), head.dtable(rows.len(), chunk > 0));
                let (for_dh, for_dtable) = (tasks_of(&dh), tasks_of(&dtable));
                if task < for_dh {
                    dh.run(0, task, logits, args.table, args.dh.add(rows.start * head.width));
                } else if task < for_dh + for_dtable {
                    dtable.run(0, task - for_dh, logits, h, args.dtable);
                } else {
                    head.mean_loss(args);
                }
            }
        }
    }
}
