//! The head of a language model and its cross entropy as one call, so that logits never exist for all rows at once.
//!
//! With x_i = table h_i the logits of row i, and scale = 1 / rows:
//!
//! ```text
//! loss    = scale sum_i (ln sum_c exp(x_ic) - x_i,target)
//! dx_ic   = scale (exp(x_ic) / sum_k exp(x_ik) - [c = target_i])
//! dh_i    = sum_c dx_ic table_c                    dtable_c = sum_i dx_ic h_i
//! ```
//!
//! dx is made in place of x. Rows go in chunks, in one of two ways, by shape alone:
//!
//! * `local`, where one chunk's logits, the table and its gradient fit into a core's own cache: a task takes whole
//!   chunks through all four products in its thread's scratch memory, adds up its own gradient of the table, and a second
//!   phase adds the tasks' gradients in order.
//! * `shared`, for large vocabularies: one chunk after another has its logits in the workspace, and each product is cut
//!   into tasks as products are.
//!
//! | argument | shape | |
//! |---|---|---|
//! | `h`, `dh` | f32 [rows, width] | |
//! | `table`, `dtable` | f32 [vocab, width] | |
//! | `targets` | i32 [rows] | one outside 0..vocab names no logit: its row's loss is ln sum_c exp(x_ic - max_k x_ik) |
//! | `loss` | f32 [] | nats per row |
//! | `workspace` | f32, [`Head::workspace`] | any content at entry |

mod local;
mod shared;
mod softmax;
#[cfg(test)]
mod tests;

use super::gemm::Gemm;
use super::simd::{Level, MAX_LANES, Simd, Work};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::ops::Range;

/// Dimensions of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    pub rows: usize,
    pub width: usize,
    pub vocab: usize,
    /// At most so many rows have logits at once: in each task that runs, or in all. At least 1.
    pub chunk: usize,
    /// Whether dh and dtable are wanted, and arguments of the call.
    pub gradients: bool,
}

/// Places of the arguments; `dh` and `dtable` are not looked at without gradients.
#[derive(Clone, Copy)]
pub struct Args {
    pub h: *const f32,
    pub table: *const f32,
    pub targets: *const i32,
    pub loss: *mut f32,
    pub dh: *mut f32,
    pub dtable: *mut f32,
    pub workspace: *mut f32,
}

impl Head {
    /// The rows of a local chunk: enough that packing the table for its products is little beside them.
    pub const LOCAL_ROWS: usize = 128;
    /// Floats of a chunk's logits, and of the table, that leave a cache of 1 MiB room for the rest.
    const LOCAL_FLOATS: usize = 1 << 16;

    /// Whether a chunk of up to [`LOCAL_ROWS`](Self::LOCAL_ROWS) rows can go through all products in a core's cache.
    pub fn fits_locally(width: usize, vocab: usize) -> bool {
        vocab * Self::LOCAL_ROWS <= Self::LOCAL_FLOATS && vocab * width <= Self::LOCAL_FLOATS
    }

    fn is_local(&self) -> bool {
        self.chunk <= Self::LOCAL_ROWS && Self::fits_locally(self.width, self.vocab)
    }

    /// Independent tasks of each phase.
    pub fn phases(&self) -> SmallVec<[usize; 4]> {
        match self.is_local() {
            true => local::phases(self),
            false => shared::phases(self),
        }
    }

    /// f32 elements of the workspace.
    pub fn workspace(&self) -> usize {
        // Each row's loss, and what the regime needs.
        self.losses() + if self.is_local() { local::workspace(self) } else { shared::workspace(self) }
    }

    /// Bytes of scratch that a task takes of its thread: where chunks stay local, the logits of one.
    pub fn scratch_bytes(&self) -> usize {
        if self.is_local() { local::scratch_elements(self) * size_of::<f32>() } else { 0 }
    }

    /// Bytes of packing space, for a and for b of its products, that a task takes of its thread.
    pub fn packing_bytes(&self) -> [usize; 2] {
        let mut most = [0, 0];
        // Chunks have two heights at most.
        let chunks = self.chunks();
        for rows in [self.rows / chunks.max(1), self.rows.div_ceil(chunks.max(1))] {
            let products = [self.logits(rows), self.dh(rows), self.dtable(rows, true)];
            for product in &products[..if self.gradients { 3 } else { 1 }] {
                let [a, b] = match self.is_local() {
                    true => product.packing_bytes_of_rows(product.m),
                    false => product.packing_bytes(),
                };
                most = [most[0].max(a), most[1].max(b)];
            }
        }
        most
    }

    /// Floating-point operations of the products, a multiply-add counted as 2: logits, and with gradients dh and dtable.
    pub fn flops(&self) -> u64 {
        let products = if self.gradients { 3 } else { 1 };
        products * 2 * self.rows as u64 * self.width as u64 * self.vocab as u64
    }

    /// Runs one task.
    ///
    /// # Safety
    /// The pointers must be valid for the shapes in the module's table, `loss`, `dh`, `dtable` and `workspace` may alias
    /// nothing and be touched by nobody but tasks of the same call. `phase` and `task` must be in range of
    /// [`phases`](Self::phases), and all tasks of earlier phases must have finished.
    pub unsafe fn run(&self, phase: usize, task: usize, args: Args) {
        // SAFETY: the caller's promise; the level is one this machine has.
        unsafe { self.run_on(Level::detected(), phase, task, args) }
    }

    /// [`run`](Self::run) with the instructions of one level where this module has its own.
    ///
    /// # Safety
    /// As there; the level must be [`available`](Level::available).
    unsafe fn run_on(&self, level: Level, phase: usize, task: usize, args: Args) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.is_local() {
                true => local::run(self, level, phase, task, args),
                false => shared::run(self, level, phase, task, args),
            }
        }
    }

    fn scale(&self) -> f64 {
        1.0 / self.rows as f64
    }

    /// Floats at the start of the workspace for each row's loss.
    fn losses(&self) -> usize {
        self.rows.next_multiple_of(MAX_LANES)
    }

    /// Floats from one row of logits to the next: rows start on cache lines, and not all in the same few sets of L1.
    fn stride(&self) -> usize {
        let lines = self.vocab.div_ceil(MAX_LANES);
        (if lines.is_multiple_of(8) { lines + 1 } else { lines }) * MAX_LANES
    }

    fn chunks(&self) -> usize {
        self.rows.div_ceil(self.chunk.max(1))
    }

    /// Rows of chunk `index`: all chunks are of nearly equal height.
    fn chunk_rows(&self, index: usize) -> Range<usize> {
        let chunks = self.chunks();
        self.rows * index / chunks..self.rows * (index + 1) / chunks
    }

    /// logits [rows, vocab] = h [rows, width] table^T, rows of logits `stride` apart.
    fn logits(&self, rows: usize) -> Gemm {
        Gemm {
            batch: 1,
            m: rows,
            n: self.vocab,
            k: self.width,
            a: [0, self.width, 1],
            b: [0, 1, self.width],
            c: [0, self.stride(), 1],
            accumulate: false,
        }
    }

    /// dh [rows, width] = dlogits [rows, vocab] table.
    fn dh(&self, rows: usize) -> Gemm {
        Gemm {
            batch: 1,
            m: rows,
            n: self.width,
            k: self.vocab,
            a: [0, self.stride(), 1],
            b: [0, self.width, 1],
            c: [0, self.width, 1],
            accumulate: false,
        }
    }

    /// dtable [vocab, width] (+)= dlogits^T [vocab, rows] h.
    fn dtable(&self, rows: usize, accumulate: bool) -> Gemm {
        Gemm {
            batch: 1,
            m: self.vocab,
            n: self.width,
            k: rows,
            a: [0, 1, self.stride()],
            b: [0, self.width, 1],
            c: [0, self.width, 1],
            accumulate,
        }
    }

    /// The mean of the rows' losses.
    ///
    /// # Safety
    /// Every row's loss must be in the workspace.
    unsafe fn mean_loss(&self, args: Args) {
        // SAFETY: the workspace begins with `rows` losses, the caller's promise.
        unsafe {
            let losses = std::slice::from_raw_parts(args.workspace, self.rows);
            *args.loss = (losses.iter().map(|&x| f64::from(x)).sum::<f64>() * self.scale()) as f32;
        }
    }
}

/// `rows` rows of logits become their losses, and with gradients dlogits.
struct Softmax<'a> {
    head: &'a Head,
    logits: *mut f32,
    rows: Range<usize>,
    args: Args,
}

impl Work for Softmax<'_> {
    type Output = ();

    /// # Safety
    /// `logits` must hold the rows, `stride` apart, the first of them at the pointer; losses of these rows are written.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Softmax { head, logits, rows, args } = self;
        for (at, row) in rows.enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let x = logits.add(at * head.stride());
                let target = usize::try_from(*args.targets.add(row)).ok().filter(|&t| t < head.vocab);
                let scale = head.gradients.then(|| head.scale());
                *args.workspace.add(row) = softmax::row::<S>(x, head.vocab, target, scale);
            }
        }
    }
}
