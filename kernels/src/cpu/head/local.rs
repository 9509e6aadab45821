//! Chunks that go through all products in one thread's cache: small vocabularies.

use super::{Args, Head, Softmax};
use crate::cpu::scratch::Scratch;
use crate::cpu::simd::Level;
use smallvec::{SmallVec, smallvec};
use std::ops::{Range, RangeInclusive};

/// Tasks that share the chunks; 2, 4 and 8 threads divide even the fewest evenly.
const UNITS: RangeInclusive<usize> = 8..=64;
/// Floats of the table's gradient that one task of the last phase adds up.
const SUM_FLOATS: usize = 1 << 12;

/// Each unit leaves a gradient of the table: together half of what the logits of all rows would take, where that is 8
/// units or more.
fn units(head: &Head) -> usize {
    let affordable = head.rows / (2 * head.width);
    head.chunks().min(affordable.clamp(*UNITS.start(), *UNITS.end()))
}

fn table_floats(head: &Head) -> usize {
    head.vocab * head.width
}

/// Tasks of the last phase that add gradients; none where a single unit writes the gradient itself.
fn sums(head: &Head) -> usize {
    match units(head) {
        1 => 0,
        _ if !head.gradients => 0,
        _ => table_floats(head).div_ceil(SUM_FLOATS),
    }
}

/// All products of each unit; sums over units, and the mean loss as one task more.
pub fn phases(head: &Head) -> SmallVec<[usize; 4]> {
    smallvec![units(head), sums(head) + 1]
}

/// The gradients of all units but the first, which writes the result.
pub fn workspace(head: &Head) -> usize {
    if head.gradients { (units(head).max(1) - 1) * table_floats(head) } else { 0 }
}

/// Floats of thread scratch that a unit takes: the logits of one chunk.
pub fn scratch_elements(head: &Head) -> usize {
    head.chunk.min(head.rows) * head.stride()
}

/// # Safety
/// As [`Head::run`].
pub unsafe fn run(head: &Head, level: Level, phase: usize, task: usize, args: Args) {
    let sums = sums(head);
    // SAFETY: the caller's promise.
    unsafe {
        match phase {
            0 => unit(head, level, task, args),
            _ if task == sums => head.mean_loss(args),
            _ => {
                let start = task * SUM_FLOATS;
                add_units(head, start..(start + SUM_FLOATS).min(table_floats(head)), args);
            }
        }
    }
}

/// # Safety
/// As [`Head::run`], phase 0.
unsafe fn unit(head: &Head, level: Level, unit: usize, args: Args) {
    let (chunks, units) = (head.chunks(), units(head));
    let own = chunks * unit / units..chunks * (unit + 1) / units;
    Scratch::with(scratch_elements(head), |scratch| {
        let logits = scratch.take(scratch_elements(head));
        // SAFETY: rows are in range; a chunk's logits fit into the scratch; each unit has its own gradient.
        unsafe {
            let dtable = match unit {
                0 => args.dtable,
                _ => args.workspace.add(head.losses() + (unit - 1) * table_floats(head)),
            };
            for index in own.clone() {
                let rows = head.chunk_rows(index);
                let height = rows.len();
                let h = args.h.add(rows.start * head.width);
                head.logits(height).run_rows(0..height, h, args.table, logits);
                level.run(Softmax { head, logits, rows: rows.clone(), args });
                if head.gradients {
                    let dh = args.dh.add(rows.start * head.width);
                    head.dh(height).run_rows(0..height, logits, args.table, dh);
                    let gradient = head.dtable(height, index > own.start);
                    gradient.run_rows(0..head.vocab, logits, h, dtable);
                }
            }
        }
    })
}

/// Adds the units' gradients of the table, in order, for some of its elements.
///
/// # Safety
/// As [`Head::run`], phase 1; the range lies within the table.
unsafe fn add_units(head: &Head, range: Range<usize>, args: Args) {
    // SAFETY: the range of each unit's gradient was written in phase 0, and that of the result is this task's.
    unsafe {
        let result = std::slice::from_raw_parts_mut(args.dtable.add(range.start), range.len());
        for unit in 1..units(head) {
            let at = head.losses() + (unit - 1) * table_floats(head) + range.start;
            let part = std::slice::from_raw_parts(args.workspace.add(at), range.len());
            result.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
    }
}
