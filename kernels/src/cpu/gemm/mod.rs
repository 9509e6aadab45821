//! Batched products of f32 matrices with arbitrary strides.
//!
//! A product is cut into tasks by its shape alone, and each task owns rectangles of `c`: any number of threads, in any
//! order, gives the same bits. On a CPU with AVX-512 tasks run on our own kernel (`avx512`), elsewhere, and for
//! products that are nearly vectors, on crate `gemm`.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod squares;
mod tiling;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::pack::transpose_16x16;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use tiling::Tiling;

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

    /// Elements from the start of a, b and c to the last one reached, or 0 where none is.
    pub fn extents(&self) -> [usize; 3] {
        let extent = |strides: [usize; 3], rows: usize, cols: usize| {
            let sizes = [self.batch, rows, cols];
            if sizes.contains(&0) {
                0
            } else {
                sizes.iter().zip(strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>() + 1
            }
        };
        [extent(self.a, self.m, self.k), extent(self.b, self.k, self.n), extent(self.c, self.m, self.n)]
    }

    /// Independent tasks of each phase; a product has one phase.
    pub fn phases(&self) -> SmallVec<[usize; 4]> {
        smallvec![Tiling::of(&self.canonical().0).tasks()]
    }

    /// The same product in the form the kernels expect, and whether a and b change places for it: c's columns are
    /// contiguous wherever either of its dimensions is, and a batch that only continues the rows is folded into m.
    fn canonical(&self) -> (Gemm, bool) {
        let mut g = *self;
        let swap = g.c[2] != 1 && g.c[1] == 1;
        if swap {
            let transposed = |s: [usize; 3]| [s[0], s[2], s[1]];
            (g.m, g.n) = (g.n, g.m);
            (g.a, g.b, g.c) = (transposed(g.b), transposed(g.a), transposed(g.c));
        }
        if g.batch > 1 && g.b[0] == 0 && g.a[0] == g.m * g.a[1] && g.c[0] == g.m * g.c[1] {
            g.m *= g.batch;
            g.batch = 1;
        }
        (g, swap)
    }

    /// Runs task `task` of phase `phase` on the calling thread.
    ///
    /// # Safety
    /// `a`, `b` and `c` must be valid for every element the strides reach, `c` must overlap neither `a` nor `b`, no
    /// two elements of `c` may coincide, and nobody else may touch this task's part of `c` meanwhile.
    pub unsafe fn run(&self, phase: usize, task: usize, a: *const f32, b: *const f32, c: *mut f32) {
        debug_assert_eq!(phase, 0, "a product has one phase");
        let (g, swap) = self.canonical();
        let (a, b) = if swap { (b, a) } else { (a, b) };
        for tile in Tiling::of(&g).tiles(&g, task) {
            let part = Gemm { m: tile.rows.len(), n: tile.cols.len(), ..g };
            // SAFETY: the tile lies within the shape, so every offset stays inside what the caller vouches for, and
            // tiles of different tasks are disjoint.
            unsafe {
                let a = a.add(tile.batch * g.a[0] + tile.rows.start * g.a[1]);
                let b = b.add(tile.batch * g.b[0] + tile.cols.start * g.b[2]);
                let c = c.add(tile.batch * g.c[0] + tile.rows.start * g.c[1] + tile.cols.start * g.c[2]);
                part.run_tile(&g, a, b, c);
            }
        }
    }

    /// Computes rows `rows` of c, all their columns, on the calling thread, for a product of one matrix (`batch` 1).
    /// `a`, `b` and `c` point to the whole operands, as for [`Gemm::run`]. The kernel is the one that the whole product
    /// takes; with our own each row has the bits that `run` gives it, however the rows are cut.
    ///
    /// # Safety
    /// As [`Gemm::run`], for these rows of `a` and `c`; `rows` must lie within 0..m.
    pub unsafe fn run_rows(&self, rows: Range<usize>, a: *const f32, b: *const f32, c: *mut f32) {
        debug_assert!(self.batch == 1 && rows.end <= self.m, "rows {rows:?} of {self:?}");
        let (whole, swap) = self.canonical();
        if rows.is_empty() {
            return;
        }
        // SAFETY: the rows lie within the operands.
        let (a, c) = unsafe { (a.add(rows.start * self.a[1]), c.add(rows.start * self.c[1])) };
        let (part, a, b) = if swap {
            (Gemm { n: rows.len(), ..whole }, b, a)
        } else {
            (Gemm { m: rows.len(), ..whole }, a, b)
        };
        // SAFETY: the caller's.
        unsafe { part.run_tile(&whole, a, b, c) };
    }

    /// The same product over b transposed once, [k, n] with contiguous rows, where the tasks of a chain read it so:
    /// packing a transposed operand again for every block of rows would cost more than the chain saves.
    pub fn over_transposed_b(&self) -> Option<Gemm> {
        (self.b[1..] == [1, self.k] && self.n >= 2).then_some(Gemm { b: [0, self.n, 1], ..*self })
    }

    /// Bytes of packing space, for a and for b, that [`run`](Self::run) takes of each thread with AVX-512. Crate gemm,
    /// which runs products elsewhere, keeps buffers of its own.
    pub fn packing_bytes(&self) -> [usize; 2] {
        let (g, _) = self.canonical();
        let tiling = Tiling::of(&g);
        let tiles = (0..tiling.parts()).filter_map(|task| tiling.tiles(&g, task).next());
        most(tiles.map(|tile| Gemm { m: tile.rows.len(), n: tile.cols.len(), ..g }.packing_bytes_whole()))
    }

    /// As [`packing_bytes`](Self::packing_bytes), for [`run_rows`](Self::run_rows) of `rows` rows at a time.
    pub fn packing_bytes_of_rows(&self, rows: usize) -> [usize; 2] {
        let (whole, swap) = self.canonical();
        // The last rows are fewer, and few rows may be read in another way.
        let ways = [rows.min(self.m), self.m % rows.max(1)].into_iter().filter(|&rows| rows > 0);
        most(ways.map(|rows| {
            let part = if swap { Gemm { n: rows, ..whole } } else { Gemm { m: rows, ..whole } };
            part.packing_bytes_whole()
        }))
    }

    fn packing_bytes_whole(&self) -> [usize; 2] {
        #[cfg(target_arch = "x86_64")]
        if avx512::takes(self) {
            return avx512::packing_bytes(self);
        }
        [0, 0]
    }

    /// Whether this product, in canonical form, is our own kernel's on this CPU.
    fn is_own(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return avx512::handles(self);
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Runs one tile; `whole` is the product it is part of, by which the kernel is chosen so that all tiles agree.
    ///
    /// # Safety
    /// As [`Gemm::run`], for the first matrix of the batch.
    unsafe fn run_tile(&self, whole: &Gemm, a: *const f32, b: *const f32, c: *mut f32) {
        if whole.is_own() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `is_own` has checked that this CPU has AVX-512 and that c's columns are contiguous.
            return unsafe { avx512::run(self, a, b, c) };
        }
        let [(arow, acol), (brow, bcol), (crow, ccol)] =
            [self.a, self.b, self.c].map(|s| (s[1] as isize, s[2] as isize));
        // SAFETY: passed on from the caller; the strides are those of the whole product.
        unsafe {
            gemm::gemm(
                self.m,
                self.n,
                self.k,
                c,
                ccol,
                crow,
                self.accumulate,
                a,
                acol,
                arow,
                b,
                bcol,
                brow,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// Makes room for so many bytes of packed a and b on this thread.
pub fn reserve_packing(bytes: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    avx512::reserve_packing(bytes);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

fn most(bytes: impl Iterator<Item = [usize; 2]>) -> [usize; 2] {
    bytes.fold([0, 0], |[a, b], [c, d]| [a.max(c), b.max(d)])
}

#[cfg(test)]
mod tests;
