//! The backward tasks: recompute probabilities a block of rows at a time, then five gradients from registers' tiles.
//!
//! With p_ij = exp(s_ij - lse_i) and delta_i = dout_i.out_i: ds_ij = p_ij (dout_i.val_j - delta_i), and
//!
//! ```text
//! dval_j = sum_i p_ij dout_i                         dq_i = scale sum_j ds_ij (k_j + R_{i-j})
//! dk_j   = scale sum_i ds_ij (q_i + u)               dR_t = scale sum over i - j = t of ds_ij (q_i + v)
//! du     = scale sum_ij ds_ij k_j                    dv   = scale sum_ij ds_ij R_{i-j}
//! ```
//!
//! dq is one product, since k_j + R_{i-j} is added up on the way; its rows then sum to du + dv, and du comes from the
//! column sums of ds.
//!
//! A unit is one head, some batch entries and one chunk of rows. It owns dq of its rows, and dk and dval where rows
//! were not cut; the rest it leaves as partial sums in the workspace, added up in unit order by the last phase.

mod queries;

use super::pack::{self, PackedRel, query_stride};
use super::reduce::{self, Partial};
use super::scores::{MARGIN, group_columns, position_products, query_rows, score_stride, score_tile};
use super::tile::{Scalars, Vectors, WIDTH, accumulate, staircase_block, tile_width, with_tile};
use super::{GROUP, RelAttention};
use crate::cpu::scratch::{Scratch, padded};
use crate::cpu::simd::Simd;
use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

/// Rows whose probabilities are held at once: the depth of the products that sum over queries.
const BLOCK: usize = 4 * GROUP;

/// Rows of values asked for while keys are packed; more would push out what is in use.
const FIRST_ROWS: usize = 256;

/// Floats of thread scratch a backward task takes.
pub fn scratch_elements(dims: &RelAttention) -> usize {
    let (padded_seq, d) = (dims.seq_padded(), dims.d_head);
    2 * padded(padded_seq * d)
        + padded(padded_seq * dims.d_padded())
        + 2 * padded(padded_seq * query_stride(d))
        + 3 * padded(BLOCK * query_stride(d))
        + padded(GROUP * score_stride(dims))
        + 2 * padded(BLOCK * score_stride(dims))
        + 2 * padded(BLOCK)
        + padded(padded_seq)
        + padded(dims.d_padded())
}

/// One task of one phase.
///
/// # Safety
/// As [`RelAttention::backward`].
#[inline(always)]
pub unsafe fn run<S: Simd>(
    dims: &RelAttention,
    phase: usize,
    task: usize,
    args: [*mut f32; 12],
    scratch: &mut Scratch,
) {
    let [_, rel, _, _, _, _, _, dqkv, drel, du, dv, workspace] = args;
    // SAFETY: the caller's promise.
    unsafe {
        match phase {
            0 => pack::pack_rel::<S>(dims, task, rel, workspace),
            1 => unit::<S>(dims, task, args, scratch),
            _ => reduce::run::<S>(dims, task, workspace, dqkv, [drel, du, dv]),
        }
    }
}

/// What the functions of one (batch entry, head) work on. Queries carry scale * log2(e), so scores are in base 2.
#[derive(Clone, Copy)]
struct Head {
    dims: RelAttention,
    rel: PackedRel,
    /// Panels, for scores.
    keys: *const f32,
    /// Panels, for dout.val.
    values: *const f32,
    /// Padded rows, for dq.
    key_rows: *const f32,
    /// BLOCK rows of [`query_stride`]: (q + u), (q + v), dout.
    content_queries: *mut f32,
    position_queries: *mut f32,
    douts: *mut f32,
    /// GROUP rows of position products.
    positions: *mut f32,
    /// BLOCK rows of p and of ds.
    probabilities: *mut f32,
    dscores: *mut f32,
    /// BLOCK elements: lse in base 2, and delta.
    lse: *mut f32,
    delta: *mut f32,
    /// Panels of [`query_stride`] channels that gather dk, dval and dR.
    dkeys: *mut f32,
    dvalues: *mut f32,
    drel: *mut f32,
    /// Sums over rows of ds, by key.
    column_sums: *mut f32,
    /// d_head sums each: du, and du + dv.
    du: *mut f32,
    both_biases: *mut f32,
}

/// Gradients of one unit.
///
/// # Safety
/// As [`RelAttention::backward`], phase 1.
#[inline(always)]
unsafe fn unit<S: Simd>(dims: &RelAttention, task: usize, args: [*mut f32; 12], scratch: &mut Scratch) {
    let [qkv, _, u, v, out, lse, dout, dqkv, _, _, _, workspace] = args;
    let chunks = dims.backward_chunks();
    let (group, h) = (task / chunks / dims.heads, task / chunks % dims.heads);
    let rows = dims.chunk_rows(task % chunks, chunks);
    let (seq, d, stride) = (dims.seq, dims.d_head, dims.qkv_stride());
    let (panel_size, query_size) = (dims.seq_padded() * query_stride(d), BLOCK * query_stride(d));

    let keys = scratch.take(dims.seq_padded() * d);
    let values = scratch.take(dims.seq_padded() * d);
    let key_rows = scratch.take(dims.seq_padded() * dims.d_padded());
    // SAFETY: pieces of scratch have the sizes their users ask for; rows, heads and channels are in range.
    unsafe {
        let partial = Partial::of(dims, workspace, task);
        let (dkeys, dvalues) = match partial.keys_and_values {
            Some(both) => both,
            None => (scratch.take(panel_size), scratch.take(panel_size)),
        };
        let head = Head {
            dims: *dims,
            rel: PackedRel::of(dims, workspace, h),
            keys,
            values,
            key_rows,
            content_queries: scratch.take(query_size),
            position_queries: scratch.take(query_size),
            douts: scratch.take(query_size),
            positions: scratch.take(GROUP * score_stride(dims)).add(MARGIN),
            probabilities: scratch.take(BLOCK * score_stride(dims)).add(MARGIN),
            dscores: scratch.take(BLOCK * score_stride(dims)).add(MARGIN),
            lse: scratch.take(BLOCK),
            delta: scratch.take(BLOCK),
            dkeys,
            dvalues,
            drel: partial.drel,
            column_sums: scratch.take(dims.seq_padded()),
            du: partial.du,
            both_biases: partial.dv,
        };
        let no_bias = scratch.take(dims.d_padded());
        no_bias.write_bytes(0, d);
        for r in 0..BLOCK {
            head.dscores.add(r * score_stride(dims)).sub(MARGIN).write_bytes(0, MARGIN);
        }
        // Lanes of rel that no row of the chunk reaches.
        let unreached = dims.seq_padded() - rows.end.next_multiple_of(S::LANES);
        head.drel.write_bytes(0, unreached * query_stride(d));
        head.du.write_bytes(0, d);
        head.both_biases.write_bytes(0, d);

        let batch_from = group * dims.batch_per_group();
        let batch_to = (batch_from + dims.batch_per_group()).min(dims.batch);
        for b in batch_from..batch_to {
            let q = qkv.add(b * seq * stride + h * d);
            let dq = dqkv.add(b * seq * stride + h * d);
            let (to_k, to_val) = (dims.head_stride(), 2 * dims.head_stride());
            let ahead = rows.end.min(FIRST_ROWS);
            pack::prefetch_rows::<S>(q.add(to_val), stride, ahead, d);
            pack::panels::<S>(q.add(to_k), stride, rows.end, d, keys);
            let tail = rows.len().min(BLOCK);
            let at = (b * seq + rows.end - tail) * dims.head_stride() + h * d;
            pack::prefetch_rows::<S>(q.add((rows.end - tail) * stride), stride, tail, d);
            pack::prefetch_rows::<S>(out.add(at), dims.head_stride(), tail, d);
            pack::prefetch_rows::<S>(dout.add(at), dims.head_stride(), tail, d);
            pack::panels::<S>(q.add(to_val), stride, rows.end, d, values);
            pack::rows::<S>(q.add(to_k), stride, rows.end, d, key_rows);
            head.column_sums.write_bytes(0, dims.seq_padded());
            // From the last block to the first: the last reaches every key, so it sets what the others add to, and
            // the keys of a block are done when it is.
            for from in rows.clone().step_by(BLOCK).rev() {
                let block = from..(from + BLOCK).min(rows.end);
                let n = block.len();
                let dq = dq.add(from * stride);
                let at = (b * seq + from) * dims.head_stride() + h * d;
                for part in [0, to_k, to_val] {
                    pack::prefetch_rows::<S>(dq.add(part), stride, n, d);
                }
                if from > rows.start {
                    let before = from - BLOCK;
                    pack::prefetch_rows::<S>(q.add(before * stride), stride, BLOCK, d);
                    let at = at - BLOCK * dims.head_stride();
                    pack::prefetch_rows::<S>(out.add(at), dims.head_stride(), BLOCK, d);
                    pack::prefetch_rows::<S>(dout.add(at), dims.head_stride(), BLOCK, d);
                }
                if b + 1 < batch_to {
                    let next = q.add((seq + from) * stride);
                    pack::prefetch_rows::<S>(next.add(to_k), stride, n, d);
                    pack::prefetch_rows::<S>(next.add(to_val), stride, n, d);
                }

                let q = q.add(from * stride);
                let scale = LOG2_E / (d as f32).sqrt();
                pack::queries::<S>(q, stride, n, d, u.add(h * d), scale, head.content_queries);
                pack::queries::<S>(q, stride, n, d, v.add(h * d), scale, head.position_queries);
                let (out, dout) = (out.add(at), dout.add(at));
                pack::queries::<S>(dout, dims.head_stride(), n, d, no_bias, 1.0, head.douts);
                let lse = lse.add((b * dims.heads + h) * seq + from);
                head.row_constants::<S>(n, out, dout, lse);
                for first in block.clone().step_by(GROUP) {
                    head.group_dscores::<S>(first, first - from);
                    head.query_gradients::<S>(first, first - from, dq.add((first - from) * stride));
                }
                let last_block = block.end == rows.end;
                head.sum_over_queries::<S>(&block, last_block, last_block && b == batch_from);
                if partial.keys_and_values.is_none() {
                    let (dk, dval) = (dkeys.add(from * query_stride(d)), dvalues.add(from * query_stride(d)));
                    pack::unpack_panels::<S>(dk, query_stride(d), n, d, LN_2, dq.add(to_k), stride);
                    pack::unpack_panels::<S>(dval, query_stride(d), n, d, 1.0, dq.add(to_val), stride);
                }
            }
            head.add_key_sums::<S>(rows.end);
        }
        for c in 0..d {
            *partial.dv.add(c) -= *partial.du.add(c);
        }
    }
}

/// # Safety
/// All methods: the fields point to memory of the sizes they name, and `first` is a group's first row, `at` its
/// place in the block.
impl Head {
    /// lse in base 2 and delta for `n` rows.
    #[inline(always)]
    unsafe fn row_constants<S: Simd>(&self, n: usize, out: *const f32, dout: *const f32, lse: *const f32) {
        let (d, stride) = (self.dims.d_head, self.dims.head_stride());
        // SAFETY: rows below n, channels below d.
        unsafe {
            for r in 0..n {
                *self.lse.add(r) = *lse.add(r) * LOG2_E;
                let mut sum = S::splat(0.0);
                for c in (0..d).step_by(S::LANES) {
                    let lanes = S::LANES.min(d - c);
                    let (x, y) = (out.add(r * stride + c), dout.add(r * stride + c));
                    sum = S::mul_add(S::load_first(x, lanes), S::load_first(y, lanes), sum);
                }
                *self.delta.add(r) = S::sum(sum);
            }
        }
    }

    /// p and ds of one group, zero beyond each row's diagonal, for whole vectors of keys.
    #[inline(always)]
    unsafe fn group_dscores<S: Simd>(&self, first: usize, at: usize) {
        let columns = group_columns::<S>(&self.dims, first);
        // SAFETY: the fields' sizes.
        unsafe {
            let queries = self.position_queries.add(at * query_stride(self.dims.d_head));
            position_products::<S>(&self.dims, first, queries, self.rel.panels, self.positions);
            for r in (0..GROUP).step_by(S::ROWS) {
                let mut j = 0;
                while j < columns {
                    let width = tile_width((columns - j) / S::LANES);
                    with_tile!(S, width, dscore_tile(self, first, at, r, j));
                    j += width * S::LANES;
                }
            }
        }
    }

    /// Adds the block's rows to dk and dval (or sets them) and to dR (or sets it).
    #[inline(always)]
    unsafe fn sum_over_queries<S: Simd>(&self, block: &Range<usize>, set_keys: bool, set_rel: bool) {
        let Self { dims, .. } = self;
        let (n, height, stride) = (block.len(), query_stride(dims.d_head), score_stride(dims) as isize);
        let lanes = S::LANES as isize;
        let panel = (height * S::LANES) as isize;
        let transposed = |queries: *mut f32| Scalars { ptr: queries, row: 1, k: height as isize };
        let columns = block.end.next_multiple_of(S::LANES);
        let mut j = 0;
        while j < columns {
            let width = tile_width((columns - j) / S::LANES);
            // Vector v is reached first by row i = j + v * LANES.
            let start: [usize; WIDTH] =
                std::array::from_fn(|v| (j + v * S::LANES).saturating_sub(block.start).min(n));
            // SAFETY: the fields' sizes; rows from a vector's start on have written all of it.
            unsafe {
                let (p, ds) = (self.probabilities.add(j), self.dscores.add(j));
                let b = |ptr: *mut f32| Vectors { ptr, k: stride, v: lanes };
                let (dk, dval) = (self.dkeys.add(j * height), self.dvalues.add(j * height));
                let queries = transposed(self.content_queries);
                staircase_block::<S>(height, width, queries, b(ds), start, n, set_keys, dk, lanes, panel);
                let douts = transposed(self.douts);
                staircase_block::<S>(height, width, douts, b(p), start, n, set_keys, dval, lanes, panel);
            }
            j += width * S::LANES;
        }
        // Lane x of rel meets key x - (seq_padded - 1 - i) of row i; the last vectors are reached by the first rows,
        // so tiles run backwards.
        let mut x = dims.seq_padded() - columns;
        while x < dims.seq_padded() {
            let width = tile_width((dims.seq_padded() - x) / S::LANES);
            let last = x + (width - 1) * S::LANES;
            let start: [usize; WIDTH] = std::array::from_fn(|v| {
                let end = (last + S::LANES).saturating_sub(v * S::LANES);
                (dims.seq_padded() - end).saturating_sub(block.start).min(n)
            });
            // SAFETY: the fields' sizes; keys before the first are in the zero margin.
            unsafe {
                let key = (last + block.start) as isize - (dims.seq_padded() - 1) as isize;
                let b = Vectors { ptr: self.dscores.offset(key), k: stride + 1, v: -lanes };
                let queries = transposed(self.position_queries);
                let drel = self.drel.add(last * height);
                staircase_block::<S>(height, width, queries, b, start, n, set_rel, drel, lanes, -panel);
            }
            x += width * S::LANES;
        }
    }
}

/// One tile of [`Head::group_dscores`]: rows `r..r + R` of the group, keys from `j`.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn dscore_tile<S: Simd, const R: usize, const V: usize>(
    head: &Head,
    first: usize,
    at: usize,
    r: usize,
    j: usize,
) {
    let Head { dims, .. } = head;
    let d = dims.d_head;
    // SAFETY: the fields' sizes.
    unsafe {
        let (lse, delta) = (head.lse.add(at), head.delta.add(at));
        let queries = head.content_queries.add(at * query_stride(d));
        let mut p = score_tile::<S, R, V>(dims, first, r, j, head.positions, Some(lse), queries, head.keys);
        for row in &mut p {
            for x in row {
                *x = S::exp2(*x);
            }
        }
        if j + V * S::LANES > first + r + 1 {
            for (t, row) in p.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    let seen = (first + r + t + 1) as isize - (j + v * S::LANES) as isize;
                    *x = S::select_first(seen, *x, S::splat(0.0));
                }
            }
        }
        let tile = (at + r) * score_stride(dims) + j;
        for (t, row) in p.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                S::store(head.probabilities.add(tile + t * score_stride(dims) + v * S::LANES), *x);
            }
        }
        let mut acc = [[S::splat(0.0); V]; R];
        for (t, row) in acc.iter_mut().enumerate() {
            *row = [S::splat(-*delta.add(r + t)); V];
        }
        let b = Vectors { ptr: head.values.add(j * d), k: S::LANES as isize, v: (d * S::LANES) as isize };
        let a = query_rows(head.douts.add(at * query_stride(d)), d, r);
        accumulate::<S, R, V, V>(&mut acc, a, b, 0, d);
        let mut sums: [S::V; V] = std::array::from_fn(|v| S::load(head.column_sums.add(j + v * S::LANES)));
        for (t, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                let offset = tile + t * score_stride(dims) + v * S::LANES;
                let ds = S::mul(*x, S::load(head.probabilities.add(offset)));
                S::store(head.dscores.add(offset), ds);
                // Rows beyond seq hold anything.
                if first + r + t < dims.seq {
                    sums[v] = S::add(sums[v], ds);
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            S::store(head.column_sums.add(j + v * S::LANES), sum);
        }
    }
}
