//! How a product is cut into tasks: by its shape alone.

use super::Gemm;
use std::ops::Range;

/// Work worth handing to a thread: about ten microseconds of one core.
const FLOPS_PER_TASK: u64 = 1 << 20;
/// More tasks than this would only repeat packing; 2, 4 and 8 threads share them evenly.
const MAX_TASKS: u64 = 16;
/// Tasks are not made smaller than this in rows or columns, close to what a register tile holds.
const MIN_ROWS: usize = 14;
const MIN_COLS: usize = 32;

/// A product's grid of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Parts that m and n are cut into; both are 1 where a task takes whole matrices.
    row_parts: usize,
    col_parts: usize,
    /// Matrices of the batch that one task takes; 1 where matrices are cut.
    matrices_per_task: usize,
    batch: usize,
}

/// A rectangle of one matrix of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub batch: usize,
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

impl Tiling {
    pub fn of(g: &Gemm) -> Tiling {
        if g.batch == 0 || g.m == 0 || g.n == 0 {
            return Tiling { row_parts: 1, col_parts: 1, matrices_per_task: 1, batch: 0 };
        }
        let wanted = (g.flops() / FLOPS_PER_TASK).clamp(1, MAX_TASKS) as usize;
        if g.batch >= wanted {
            let matrices_per_task = g.batch.div_ceil(wanted);
            return Tiling { row_parts: 1, col_parts: 1, matrices_per_task, batch: g.batch };
        }
        // Each task reads its rows of a and its columns of b once: cut where the sum of these is least.
        let parts = wanted.div_ceil(g.batch);
        let (max_rows, max_cols) = (g.m.div_ceil(MIN_ROWS), g.n.div_ceil(MIN_COLS));
        let (row_parts, col_parts) = (1..=parts.min(max_rows))
            .map(|r| (r, parts.div_ceil(r).min(max_cols)))
            .filter(|&(r, c)| r * c >= parts.min(max_rows * max_cols))
            .min_by_key(|&(r, c)| (r * g.n + c * g.m, r * c))
            .unwrap_or((1, 1));
        Tiling { row_parts, col_parts, matrices_per_task: 1, batch: g.batch }
    }

    pub fn tasks(&self) -> usize {
        self.batch.div_ceil(self.matrices_per_task) * self.row_parts * self.col_parts
    }

    /// The rectangles that task `task` computes.
    pub fn tiles(self, g: &Gemm, task: usize) -> impl Iterator<Item = Tile> + use<> {
        let (group, within) =
            (task / (self.row_parts * self.col_parts), task % (self.row_parts * self.col_parts));
        let rows = part(g.m, 1, self.row_parts, within / self.col_parts);
        let cols = part(g.n, 16, self.col_parts, within % self.col_parts);
        let first = group * self.matrices_per_task;
        (first..(first + self.matrices_per_task).min(self.batch)).map(move |batch| Tile {
            batch,
            rows: rows.clone(),
            cols: cols.clone(),
        })
    }
}

/// Part `index` of 0..len cut into `parts` parts of nearly equal length, at multiples of `unit`.
fn part(len: usize, unit: usize, parts: usize, index: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let at = |i: usize| (units * i / parts * unit).min(len);
    at(index)..at(index + 1)
}
