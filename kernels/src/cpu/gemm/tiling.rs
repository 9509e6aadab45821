//! How a product is cut into tasks: by its shape alone.

use super::Gemm;
use std::ops::Range;

/// Work worth handing to a thread: about five microseconds of one core.
const FLOPS_PER_TASK: u64 = 1 << 19;
/// More tasks than this would only repeat packing; 2, 4 and 8 threads share them evenly.
const MAX_TASKS: usize = 16;
/// Parts that rows and columns are cut into: grids of 8 to 16 tasks, and of fewer.
const LARGE_GRIDS: [(usize, usize); 15] = [
    (1, 16),
    (2, 8),
    (4, 4),
    (8, 2),
    (16, 1),
    (1, 12),
    (2, 6),
    (3, 4),
    (4, 3),
    (6, 2),
    (12, 1),
    (1, 8),
    (2, 4),
    (4, 2),
    (8, 1),
];
const SMALL_GRIDS: [(usize, usize); 16] = [
    (1, 1),
    (1, 2),
    (2, 1),
    (1, 3),
    (3, 1),
    (1, 4),
    (2, 2),
    (4, 1),
    (1, 5),
    (5, 1),
    (1, 6),
    (2, 3),
    (3, 2),
    (6, 1),
    (1, 7),
    (7, 1),
];
/// Rows and columns of a register tile, and its width in steps of one vector.
const TILE_ROWS: usize = 14;
const TILE_COLS: usize = 32;
const LANES: usize = 16;

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
        let wanted = (g.flops() / FLOPS_PER_TASK).clamp(1, MAX_TASKS as u64) as usize;
        if g.batch >= wanted {
            let matrices_per_task = g.batch.div_ceil(wanted);
            return Tiling { row_parts: 1, col_parts: 1, matrices_per_task, batch: g.batch };
        }
        let most = wanted.div_ceil(g.batch);
        let fits = |&(r, c): &(usize, usize)| {
            (r == 1 || r * TILE_ROWS <= g.m) && (c == 1 || (c - 1) * TILE_COLS < g.n) && r * c <= most
        };
        let best = |grids: &[(usize, usize)]| {
            grids.iter().copied().filter(fits).min_by_key(|&(r, c)| cost(g, r, c, most))
        };
        // Few candidates: every task asks anew how its product is cut.
        let (row_parts, col_parts) = (if most >= 8 { best(&LARGE_GRIDS) } else { None })
            .or_else(|| best(&SMALL_GRIDS))
            .unwrap_or((1, 1));
        Tiling { row_parts, col_parts, matrices_per_task: 1, batch: g.batch }
    }

    pub fn tasks(&self) -> usize {
        self.batch.div_ceil(self.matrices_per_task) * self.row_parts * self.col_parts
    }

    /// Different rectangles that one matrix is cut into, those of tasks 0..parts.
    pub fn parts(&self) -> usize {
        if self.batch == 0 { 0 } else { self.row_parts * self.col_parts }
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

/// What cutting m into `r` and n into `c` parts costs two threads and eight (or as many as there may be tasks), in tenths
/// of a cycle for each step of k: arithmetic at one vector a cycle, and what a task pays for each row of a and column of
/// b that it reads, and about 500 cycles to start. Waiting for the last task takes a fraction of one.
fn cost(g: &Gemm, r: usize, c: usize, most: usize) -> usize {
    // Contiguous rows are read in place; those at multiples of 4 KiB compete for the same sets of caches and are copied.
    // Transposing costs more, gathering single floats most.
    let per_row = match (g.a[1], g.a[2]) {
        (1, stride) | (stride, 1) => {
            if stride.is_multiple_of(1024) {
                4
            } else {
                2
            }
        }
        _ => 20,
    };
    let per_col = match (g.b[1], g.b[2]) {
        (_, 1) => 2,
        (1, _) => 8,
        _ => 20,
    };
    let (rows, cols) = (g.m.div_ceil(r), g.n.div_ceil(LANES).div_ceil(c) * LANES);
    let task = 10 * rows * (cols / LANES) + per_row * rows + per_col * cols + 5000 / g.k.max(1);
    let rounds = |threads: usize| (g.batch * r * c).div_ceil(threads) * threads;
    task * (6 * rounds(2) + 2 * rounds(most.clamp(2, 8)) + 1)
}

/// Part `index` of 0..len cut into `parts` parts of nearly equal length, at multiples of `unit`.
fn part(len: usize, unit: usize, parts: usize, index: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    let at = |i: usize| (units * i / parts * unit).min(len);
    at(index)..at(index + 1)
}
