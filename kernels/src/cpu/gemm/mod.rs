//! Batched products of f32 matrices with arbitrary strides.
//!
//! A product is cut into tasks by its shape alone, and each task owns a rectangle of `c`: any number of threads, in
//! any order, gives the same bits. On a CPU with AVX-512 tasks run on our own kernel ([`avx512`]), elsewhere (and for
//! products that are nearly vectors) on crate `gemm`.

mod avx512;
mod tiling;

pub use tiling::Tiling;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

/// c[b] = a[b] * b[b] (+ c[b] where `accumulate`), a: [m, k], b: [k, n], c: [m, n], for b in 0..batch.
/// Strides are in elements; batch strides may be 0 (broadcast) for a and b.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gemm {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// [batch, row, column] strides of a.
    pub a: [usize; 3],
    pub b: [usize; 3],
    pub c: [usize; 3],
    #[serde(default)]
    pub accumulate: bool,
}

impl Gemm {
    /// Floating-point operations: a multiply and an add for each of batch * m * n * k.
    pub fn flops(&self) -> u64 {
        2 * self.batch as u64 * self.m as u64 * self.n as u64 * self.k as u64
    }

    /// Independent tasks of each phase; a product has one phase.
    pub fn phases(&self) -> SmallVec<[usize; 4]> {
        smallvec![Tiling::of(&self.canonical()).tasks()]
    }

    /// The same product in the form the kernels expect: a batch that only continues the rows is folded into m, and
    /// c's columns are contiguous wherever either of its dimensions is.
    fn canonical(&self) -> Gemm {
        let mut g = *self;
        if g.batch > 1 && g.b[0] == 0 && g.a[0] == g.m * g.a[1] && g.c[0] == g.m * g.c[1] {
            g.m *= g.batch;
            g.batch = 1;
        }
        if g.c[2] != 1 && g.c[1] == 1 {
            let transposed = |s: [usize; 3]| [s[0], s[2], s[1]];
            (g.m, g.n) = (g.n, g.m);
            (g.a, g.b, g.c) = (transposed(g.b), transposed(g.a), transposed(g.c));
        }
        g
    }

    /// Runs task `task` of phase `phase`.
    ///
    /// # Safety
    /// `a`, `b` and `c` must be valid for every element the strides reach, `c` must overlap neither `a` nor `b`, no
    /// two elements of `c` may coincide, and nobody else may touch this task's part of `c` meanwhile.
    pub unsafe fn run(&self, phase: usize, task: usize, a: *const f32, b: *const f32, c: *mut f32) {
        debug_assert_eq!(phase, 0, "a product has one phase");
        let g = self.canonical();
        let (a, b) = if g.a == self.a && g.b == self.b { (a, b) } else { swapped(self, &g, a, b) };
        let tiling = Tiling::of(&g);
        let own_kernel = avx512::handles(&g);
        for tile in tiling.tiles(&g, task) {
            // SAFETY: a tile lies within the shape, so its offsets stay inside what the caller vouches for.
            unsafe {
                let a = a.add(tile.batch * g.a[0] + tile.rows.start * g.a[1]);
                let b = b.add(tile.batch * g.b[0] + tile.cols.start * g.b[2]);
                let c = c.add(tile.batch * g.c[0] + tile.rows.start * g.c[1] + tile.cols.start * g.c[2]);
                if own_kernel {
                    avx512::run(&g, tile.rows.len(), tile.cols.len(), a, b, c);
                } else {
                    library(&g, tile.rows.len(), tile.cols.len(), a, b, c);
                }
            }
        }
    }
}
