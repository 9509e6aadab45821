//! Fused causal Transformer-XL attention, forward and backward, for the CPU.
//!
//! For one head, scale = 1/sqrt(d_head) and keys j <= i (Dai et al. 2019, with distances i - j >= 0 only):
//!
//! ```text
//! s_ij  = ((q_i + u).k_j + (q_i + v).R_{i-j}) * scale        p_ij = softmax over j of s_ij
//! out_i = sum_j p_ij val_j                                   lse_i = ln sum_j exp(s_ij)
//! ```
//!
//! Scores exist for a block of rows at a time, in a thread's own scratch memory; the backward pass recomputes them
//! from `lse`. Multiplication by R_{i-j} is a plain product over the rows of `rel` that a block of queries can
//! reach, written to scratch and read back along its diagonals, so the relative shift costs one unaligned load.
//!
//! Layouts, all f32, row-major, contiguous:
//!
//! | argument | shape | |
//! |---|---|---|
//! | `qkv`, `dqkv` | [batch * seq, 3 * heads * d_head] | columns are the q heads, then the k heads, then the v heads |
//! | `rel`, `drel` | [seq, heads * d_head] | row p belongs to distance seq - 1 - p: the last row is distance 0 |
//! | `u`, `v`, `du`, `dv` | [heads, d_head] | |
//! | `out`, `dout` | [batch * seq, heads * d_head] | |
//! | `lse` | [batch * heads, seq] | natural logarithm |
//! | `workspace` | see the `_workspace` functions | any content at entry |
//!
//! Every task also uses scratch memory of its thread, kept for the next call: a few rows of scores and one head's
//! packed keys and values, O(seq * d_head).

mod backward;
mod forward;
mod pack;
mod reduce;
pub mod reference;
mod scores;
#[cfg(test)]
mod tests;
mod tile;

use super::scratch::Scratch;
use super::simd::{Level, MAX_LANES, Simd, Work};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

/// Dimensions of one relative-attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RelAttention {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub d_head: usize,
}

/// Units of one (batch, head) are cut finer until there are this many tasks, enough to keep 8 threads busy, even
/// though every piece packs its keys again.
const MIN_TASKS: usize = 8;
/// Where pieces stay longer than [`SLAB`] rows, and packing is little, there may be this many.
const WANTED_TASKS: usize = 32;
/// Queries are taken in groups of this many rows: the height of the causal staircase.
const GROUP: usize = 8;
/// Rows of `rel` that one packing or reducing task handles.
const SLAB: usize = 128;

/// One task of the forward or backward pass, for [`Level::run`].
struct Task<'a, const ARGS: usize> {
    dims: &'a RelAttention,
    phase: usize,
    task: usize,
    args: [*mut f32; ARGS],
    scratch: &'a mut Scratch,
}

impl Work for Task<'_, 7> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the promise of [`RelAttention::forward`].
        unsafe { forward::run::<S>(self.dims, self.phase, self.task, self.args, self.scratch) }
    }
}

impl Work for Task<'_, 12> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the promise of [`RelAttention::backward`].
        unsafe { backward::run::<S>(self.dims, self.phase, self.task, self.args, self.scratch) }
    }
}

impl RelAttention {
    /// Tasks of each phase of [`forward`](Self::forward): pack `rel`; attend.
    pub fn forward_phases(&self) -> SmallVec<[usize; 4]> {
        if self.is_empty() {
            return smallvec![0, 0];
        }
        smallvec![self.heads * self.slabs(), self.batch * self.heads * self.forward_chunks()]
    }

    /// Tasks of each phase of [`backward`](Self::backward): pack `rel`; gradients of each unit; sums over units.
    pub fn backward_phases(&self) -> SmallVec<[usize; 4]> {
        if self.is_empty() {
            return smallvec![0, 0, 0];
        }
        let units = self.heads * self.batch_groups() * self.backward_chunks();
        smallvec![self.heads * self.slabs(), units, self.reduce_tasks()]
    }

    /// f32 elements of workspace for [`forward`](Self::forward).
    pub fn forward_workspace(&self) -> usize {
        self.heads * self.packed_rel()
    }

    /// f32 elements of workspace for [`backward`](Self::backward).
    pub fn backward_workspace(&self) -> usize {
        self.partials_offset()
            + self.heads * self.batch_groups() * self.backward_chunks() * reduce::partial_elements(self)
    }

    /// Bytes of scratch that a task of [`forward`](Self::forward) takes of its thread.
    pub fn forward_scratch_bytes(&self) -> usize {
        forward::scratch_elements(self) * size_of::<f32>()
    }

    /// Bytes of scratch that a task of [`backward`](Self::backward) takes of its thread.
    pub fn backward_scratch_bytes(&self) -> usize {
        backward::scratch_elements(self) * size_of::<f32>()
    }

    /// Floating-point operations of the forward products, causal half, a multiply-add counted as 2:
    /// (q+u)k, (q+v)R and p val, 2 * d_head for each of the seq (seq + 1) / 2 pairs.
    pub fn forward_flops(&self) -> u64 {
        3 * 2 * self.d_head as u64 * self.pairs()
    }

    /// Floating-point operations of the backward products, counted like [`forward_flops`](Self::forward_flops):
    /// two that recompute the scores, and the six gradients dP, dval, dq (content), dk, dq (position), drel. The two of
    /// dq are made with one multiply-add and one addition for each element.
    pub fn backward_flops(&self) -> u64 {
        8 * 2 * self.d_head as u64 * self.pairs()
    }

    /// Runs one task of a forward phase. `args`: qkv, rel, u, v, out, lse, workspace.
    ///
    /// # Safety
    /// Pointers must be valid for the shapes in the module's table, the workspace for
    /// [`forward_workspace`](Self::forward_workspace) elements; out, lse and workspace may alias nothing and be
    /// touched by nobody but tasks of the same call. `phase` and `task` must be in range of
    /// [`forward_phases`](Self::forward_phases), and all tasks of earlier phases must have finished.
    pub unsafe fn forward(&self, phase: usize, task: usize, args: [*mut f32; 7]) {
        // SAFETY: the caller's promise; the level is one this machine has.
        unsafe { self.forward_on(Level::detected(), phase, task, args) }
    }

    /// [`forward`](Self::forward) with the instructions of one level.
    ///
    /// # Safety
    /// As there; the level must be [`available`](Level::available).
    unsafe fn forward_on(&self, level: Level, phase: usize, task: usize, args: [*mut f32; 7]) {
        Scratch::with(forward::scratch_elements(self), |scratch| {
            // SAFETY: the caller's promise.
            unsafe { level.run(Task { dims: self, phase, task, args, scratch }) }
        })
    }

    /// Runs one task of a backward phase.
    /// `args`: qkv, rel, u, v, out, lse, dout, dqkv, drel, du, dv, workspace.
    ///
    /// # Safety
    /// As [`forward`](Self::forward), with [`backward_workspace`](Self::backward_workspace) and
    /// [`backward_phases`](Self::backward_phases); dqkv, drel, du, dv and workspace are written.
    pub unsafe fn backward(&self, phase: usize, task: usize, args: [*mut f32; 12]) {
        // SAFETY: the caller's promise; the level is one this machine has.
        unsafe { self.backward_on(Level::detected(), phase, task, args) }
    }

    /// [`backward`](Self::backward) with the instructions of one level.
    ///
    /// # Safety
    /// As there; the level must be [`available`](Level::available).
    unsafe fn backward_on(&self, level: Level, phase: usize, task: usize, args: [*mut f32; 12]) {
        Scratch::with(backward::scratch_elements(self), |scratch| {
            // SAFETY: the caller's promise.
            unsafe { level.run(Task { dims: self, phase, task, args, scratch }) }
        })
    }

    fn is_empty(&self) -> bool {
        self.batch * self.seq * self.heads * self.d_head == 0
    }

    /// Pairs (i, j) with j <= i, over batch and heads.
    fn pairs(&self) -> u64 {
        let seq = self.seq as u64;
        (self.batch * self.heads) as u64 * (seq * (seq + 1) / 2)
    }

    /// Floats from one token of qkv to the next.
    fn qkv_stride(&self) -> usize {
        3 * self.heads * self.d_head
    }

    /// Floats from one token of out, or one row of rel, to the next.
    fn head_stride(&self) -> usize {
        self.heads * self.d_head
    }

    /// seq rounded up to whole vectors.
    fn seq_padded(&self) -> usize {
        self.seq.next_multiple_of(MAX_LANES)
    }

    /// Packed `rel` keeps its last row at the end of a vector, so rows start at this lane.
    fn rel_offset(&self) -> usize {
        self.seq_padded() - self.seq
    }

    /// d_head rounded up to whole vectors.
    fn d_padded(&self) -> usize {
        self.d_head.next_multiple_of(MAX_LANES)
    }

    /// Floats of one head's packed rel: transposed panels, then rows.
    fn packed_rel(&self) -> usize {
        self.seq_padded() * (self.d_head + self.d_padded()).next_multiple_of(MAX_LANES)
    }

    fn slabs(&self) -> usize {
        self.seq_padded().div_ceil(SLAB)
    }

    /// Row blocks each (batch, head) is cut into, so that there are tasks enough; at least `rows` rows each.
    fn chunks_of(&self, rows: usize) -> usize {
        let heads = self.batch * self.heads;
        let needed = MIN_TASKS.div_ceil(heads).min(self.seq.div_ceil(rows));
        let affordable = WANTED_TASKS.div_ceil(heads).min(self.seq / SLAB);
        needed.max(affordable)
    }

    fn forward_chunks(&self) -> usize {
        self.chunks_of(2 * GROUP)
    }

    fn backward_chunks(&self) -> usize {
        self.chunks_of(4 * GROUP)
    }

    /// Rows of chunk `chunk` of `chunks`: boundaries lie where the causal triangle is cut into equal areas.
    fn chunk_rows(&self, chunk: usize, chunks: usize) -> std::ops::Range<usize> {
        let boundary = |k: usize| {
            let share = (k as f64 / chunks as f64).sqrt();
            let rows = (self.seq as f64 * share / GROUP as f64).round() as usize * GROUP;
            if k == chunks { self.seq } else { rows.min(self.seq) }
        };
        boundary(chunk)..boundary(chunk + 1)
    }

    /// Batch entries one backward unit sums over before it leaves a partial sum.
    fn batch_per_group(&self) -> usize {
        self.batch.div_ceil(WANTED_TASKS.div_ceil(self.heads).min(self.batch))
    }

    fn batch_groups(&self) -> usize {
        self.batch.div_ceil(self.batch_per_group())
    }

    /// Where the partial sums start in the backward workspace.
    fn partials_offset(&self) -> usize {
        self.heads * self.packed_rel()
    }

    /// Slabs of drel (with du and dv), then, where rows were cut into chunks, slabs of dk and dval.
    fn reduce_tasks(&self) -> usize {
        let key_slabs = if self.backward_chunks() > 1 { self.batch * self.heads * self.slabs() } else { 0 };
        self.heads * self.slabs() + key_slabs
    }
}
