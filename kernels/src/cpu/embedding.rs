//! Embedding gather and its deterministic scatter-add gradient.
//!
//! Neither checks its indices in release builds: whoever fills an index buffer checks it against `vocab` first (the
//! runtime does so when the host sets the buffer), because a program runs thousands of times over data checked once.

use smallvec::{SmallVec, smallvec};

/// Floats moved by one task: about ten microseconds of one core.
const ELEMENTS_PER_TASK: usize = 1 << 16;
/// Every scatter task reads all indices, so more tasks than this would mostly read indices.
const MAX_SCATTER_TASKS: usize = 8;

/// out[i, :] = table[indices[i], :], i in 0..rows; table [vocab, width], indices [rows], out [rows, width].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    pub rows: usize,
    pub width: usize,
    pub vocab: usize,
}

impl Gather {
    fn rows_per_task(&self) -> usize {
        ELEMENTS_PER_TASK.div_ceil(self.width.max(1))
    }

    pub fn phases(&self) -> SmallVec<[usize; 4]> {
        smallvec![self.rows.div_ceil(self.rows_per_task())]
    }

    /// # Safety
    /// The pointers must be valid for the shapes above, `out` disjoint from the others, and every index within
    /// 0..vocab. Tasks write disjoint rows of `out`.
    pub unsafe fn run(
        &self,
        _phase: usize,
        task: usize,
        table: *const f32,
        indices: *const i32,
        out: *mut f32,
    ) {
        let start = task * self.rows_per_task();
        let end = (start + self.rows_per_task()).min(self.rows);
        for i in start..end {
            // SAFETY: i < rows and the index < vocab, by the caller's promise.
            unsafe {
                let index = *indices.add(i);
                debug_assert!(
                    (0..self.vocab as i64).contains(&i64::from(index)),
                    "index {index} of row {i} is outside 0..{}",
                    self.vocab
                );
                out.add(i * self.width)
                    .copy_from_nonoverlapping(table.add(index as usize * self.width), self.width);
            }
        }
    }
}

/// out[v, :] = sum over i with indices[i] = v of updates[i, :], in order of i; with `accumulate` that is added to what out
/// held, and rows never named keep it, else they are zero. indices [rows], updates [rows, width], out [vocab, width].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterAdd {
    pub rows: usize,
    pub width: usize,
    pub vocab: usize,
    pub accumulate: bool,
}

impl ScatterAdd {
    /// A task owns a range of the vocabulary: it zeroes its rows of `out`, unless they are added to, and takes the updates
    /// that name them.
    fn tasks(&self) -> usize {
        let touched = if self.accumulate { self.rows } else { self.rows + self.vocab };
        (touched * self.width).div_ceil(ELEMENTS_PER_TASK).clamp(1, MAX_SCATTER_TASKS).min(self.vocab)
    }

    pub fn phases(&self) -> SmallVec<[usize; 4]> {
        smallvec![self.tasks()]
    }

    /// # Safety
    /// The pointers must be valid for the shapes above, `out` disjoint from the others, and every index within
    /// 0..vocab. Tasks write disjoint rows of `out`.
    pub unsafe fn run(
        &self,
        _phase: usize,
        task: usize,
        indices: *const i32,
        updates: *const f32,
        out: *mut f32,
    ) {
        let (width, tasks) = (self.width, self.tasks());
        let (first, last) = (self.vocab * task / tasks, self.vocab * (task + 1) / tasks);
        // SAFETY: rows first..last of `out` belong to this task alone; i < rows; an index outside the range is skipped.
        unsafe {
            if !self.accumulate {
                std::slice::from_raw_parts_mut(out.add(first * width), (last - first) * width).fill(0.0);
            }
            for i in 0..self.rows {
                let index = *indices.add(i);
                debug_assert!(
                    (0..self.vocab as i64).contains(&i64::from(index)),
                    "index {index} of row {i} is outside 0..{}",
                    self.vocab
                );
                let row = index as usize;
                if (first..last).contains(&row) {
                    let sum = std::slice::from_raw_parts_mut(out.add(row * width), width);
                    let update = std::slice::from_raw_parts(updates.add(i * width), width);
                    sum.iter_mut().zip(update).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(rows: usize, vocab: usize) -> Vec<i32> {
        // Uneven: small indices repeat often, as tokens do.
        (0..rows).map(|i| ((i * 7919 + i * i) % vocab % (1 + i % vocab)) as i32).collect()
    }

    #[test]
    fn gather_copies_the_named_rows() {
        for (rows, width, vocab) in [(1, 1, 1), (1000, 24, 256), (513, 300, 97)] {
            let table: Vec<f32> = (0..vocab * width).map(|i| i as f32).collect();
            let indices = indices(rows, vocab);
            let mut out = vec![f32::NAN; rows * width];
            let call = Gather { rows, width, vocab };
            for task in 0..call.phases()[0] {
                // SAFETY: the vectors have the shapes of the call.
                unsafe { call.run(0, task, table.as_ptr(), indices.as_ptr(), out.as_mut_ptr()) };
            }
            for (i, row) in out.chunks(width).enumerate() {
                assert_eq!(row, &table[indices[i] as usize * width..][..width], "row {i}");
            }
        }
    }

    #[test]
    fn scatter_sums_in_order_and_zeroes_or_keeps_the_rest() {
        for (rows, width, vocab) in [(1, 1, 1), (1000, 24, 256), (700, 96, 5000)] {
            let updates: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.37).sin()).collect();
            let indices = indices(rows, vocab);
            let base: Vec<f32> = (0..vocab * width).map(|i| (i as f32 * 0.11).cos()).collect();
            for accumulate in [false, true] {
                let mut expected = if accumulate { base.clone() } else { vec![0.0; base.len()] };
                for (i, &index) in indices.iter().enumerate() {
                    for j in 0..width {
                        expected[index as usize * width + j] += updates[i * width + j];
                    }
                }
                let call = ScatterAdd { rows, width, vocab, accumulate };
                let mut out = if accumulate { base.clone() } else { vec![f32::NAN; base.len()] };
                for task in (0..call.phases()[0]).rev() {
                    // SAFETY: the vectors have the shapes of the call.
                    unsafe { call.run(0, task, indices.as_ptr(), updates.as_ptr(), out.as_mut_ptr()) };
                }
                assert_eq!(out, expected, "{call:?}");
            }
        }
    }
}
