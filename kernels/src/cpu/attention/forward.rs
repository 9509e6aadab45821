//! The forward tasks: scores of eight rows at a time, a two-pass softmax in cache, then the values.

use super::pack::{self, PackedRel, query_stride, row_stride};
use super::scores::{MARGIN, group_columns, position_products, score_stride, score_tile};
use super::tile::{Scalars, Vectors, accumulate, tile_width, with_tile};
use super::{GROUP, RelAttention};
use crate::cpu::scratch::{Scratch, padded};
use crate::cpu::simd::Simd;
use std::f32::consts::{LN_2, LOG2_E};

/// Rows of values asked for while keys are packed; more would push out what is in use.
const FIRST_ROWS: usize = 256;

/// Floats of thread scratch a forward task takes.
pub fn scratch_elements(dims: &RelAttention) -> usize {
    padded(dims.seq_padded() * dims.d_head)
        + padded(dims.seq_padded() * dims.d_padded())
        + 2 * padded(GROUP * query_stride(dims.d_head))
        + 2 * padded(GROUP * score_stride(dims))
}

/// One task of one phase.
///
/// # Safety
/// As [`RelAttention::forward`].
#[inline(always)]
pub unsafe fn run<S: Simd>(
    dims: &RelAttention,
    phase: usize,
    task: usize,
    args: [*mut f32; 7],
    scratch: &mut Scratch,
) {
    let [_, rel, .., workspace] = args;
    // SAFETY: the caller's promise.
    unsafe {
        match phase {
            0 => pack::pack_rel::<S>(dims, task, rel, workspace),
            _ => attend::<S>(dims, task, args, scratch),
        }
    }
}

/// Rows of one chunk of one (batch, head).
///
/// # Safety
/// As [`RelAttention::forward`], phase 1.
#[inline(always)]
unsafe fn attend<S: Simd>(dims: &RelAttention, task: usize, args: [*mut f32; 7], scratch: &mut Scratch) {
    let [qkv, _, u, v, out, lse, workspace] = args;
    let chunks = dims.forward_chunks();
    let (b, h) = (task / chunks / dims.heads, task / chunks % dims.heads);
    let rows = dims.chunk_rows(task % chunks, chunks);
    let (seq, d, stride) = (dims.seq, dims.d_head, dims.qkv_stride());
    let scale = LOG2_E / (d as f32).sqrt();

    let keys = scratch.take(dims.seq_padded() * d);
    let values = scratch.take(dims.seq_padded() * dims.d_padded());
    let content_queries = scratch.take(GROUP * query_stride(d));
    let position_queries = scratch.take(GROUP * query_stride(d));
    let positions = scratch.take(GROUP * score_stride(dims));
    let scores = scratch.take(GROUP * score_stride(dims));
    // SAFETY: pieces of scratch have the sizes their users ask for; rows, heads and channels are in range.
    unsafe {
        let (positions, scores) = (positions.add(MARGIN), scores.add(MARGIN));
        let rel = PackedRel::of(dims, workspace, h);
        let q = qkv.add(b * seq * stride + h * d);
        pack::prefetch_rows::<S>(q.add(2 * dims.head_stride()), stride, rows.end.min(FIRST_ROWS), d);
        pack::panels::<S>(q.add(dims.head_stride()), stride, rows.end, d, keys);
        pack::rows::<S>(q.add(2 * dims.head_stride()), stride, rows.end, d, values);
        let end = rows.end;
        for first in rows.step_by(GROUP) {
            let height = GROUP.min(seq - first);
            let q = q.add(first * stride);
            let out = out.add((b * seq + first) * dims.head_stride() + h * d);
            pack::prefetch_rows::<S>(out, dims.head_stride(), height, d);
            if first + 2 * GROUP <= end {
                pack::prefetch_rows::<S>(q.add(GROUP * stride), stride, GROUP, d);
            }
            pack::queries::<S>(q, stride, height, d, u.add(h * d), scale, content_queries);
            pack::queries::<S>(q, stride, height, d, v.add(h * d), scale, position_queries);
            position_products::<S>(dims, first, position_queries, rel.panels, positions);
            group_scores::<S>(dims, first, positions, content_queries, keys, scores);
            let (mut maxima, mut sums) = ([0.0; GROUP], [1.0; GROUP]);
            for r in (0..GROUP).step_by(S::ROWS) {
                let (maxima, sums) = (&mut maxima[r..], &mut sums[r..]);
                let columns = group_columns::<S>(dims, first);
                let scores = scores.add(r * score_stride(dims));
                if S::ROWS == 8 {
                    softmax_rows::<S, 8>(dims, first + r, columns, scores, maxima, sums);
                } else {
                    softmax_rows::<S, 4>(dims, first + r, columns, scores, maxima, sums);
                }
            }
            let inverse_sums = sums.map(|sum| 1.0 / sum);
            let logs: [f32; GROUP] = std::array::from_fn(|r| maxima[r] * LN_2 + ln(sums[r]));
            let lse = lse.add((b * dims.heads + h) * seq + first);
            lse.copy_from_nonoverlapping(logs.as_ptr(), height);
            weigh_values::<S>(dims, first, scores, values, &inverse_sums, out);
        }
    }
}

/// Natural logarithm of a normal number, error below 1e-7 of the larger of it and 1: ln(2^e m) with m near 1 and
/// ln m = 2 artanh((m - 1) / (m + 1)). Written so that the compiler takes a group's rows at once.
#[inline(always)]
fn ln(x: f32) -> f32 {
    const HALF_ROOT: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let exponent = (x.to_bits().wrapping_sub(HALF_ROOT) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let series = 2.0 + t2 * (2.0 / 3.0 + t2 * (2.0 / 5.0 + t2 * (2.0 / 7.0 + t2 * (2.0 / 9.0))));
    exponent as f32 * LN_2 + t * series
}

/// Scores of the group, in base 2, for whole vectors of keys.
///
/// # Safety
/// As [`score_tile`]; `scores` holds GROUP rows.
#[inline(always)]
unsafe fn group_scores<S: Simd>(
    dims: &RelAttention,
    first: usize,
    positions: *const f32,
    queries: *const f32,
    keys: *const f32,
    scores: *mut f32,
) {
    let columns = group_columns::<S>(dims, first);
    for r in (0..GROUP).step_by(S::ROWS) {
        let mut j = 0;
        while j < columns {
            let width = tile_width((columns - j) / S::LANES);
            // SAFETY: the caller's promise.
            unsafe {
                with_tile!(S, width, store_scores(dims, first, r, j, positions, queries, keys, scores));
            }
            j += width * S::LANES;
        }
    }
}

/// One tile of [`group_scores`].
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn store_scores<S: Simd, const R: usize, const V: usize>(
    dims: &RelAttention,
    first: usize,
    r: usize,
    j: usize,
    positions: *const f32,
    queries: *const f32,
    keys: *const f32,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let acc = score_tile::<S, R, V>(dims, first, r, j, positions, None, queries, keys);
        for (t, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                S::store(scores.add((r + t) * score_stride(dims) + j + v * S::LANES), *x);
            }
        }
    }
}

/// Replaces the scores of R rows from row `i` by 2^(score - max of the row), zero beyond the diagonal, and gives the
/// maxima and sums. Rows go side by side: alone, each would wait for its own sums.
///
/// # Safety
/// `scores` must hold R rows of `columns` scores, whole vectors, reaching beyond key i + R - 1 or seq.
#[inline(always)]
unsafe fn softmax_rows<S: Simd, const R: usize>(
    dims: &RelAttention,
    i: usize,
    columns: usize,
    scores: *mut f32,
    maxima: &mut [f32],
    sums: &mut [f32],
) {
    let stride = score_stride(dims);
    // Vectors below this are seen whole by every row.
    let whole = (i + 1) / S::LANES * S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        let mut max = [S::splat(f32::NEG_INFINITY); R];
        for j in (0..whole).step_by(S::LANES) {
            for (r, max) in max.iter_mut().enumerate() {
                *max = S::max(*max, S::load(scores.add(r * stride + j)));
            }
        }
        for j in (whole..columns).step_by(S::LANES) {
            for (r, max) in max.iter_mut().enumerate() {
                let (seen, x) = ((i + r + 1) as isize - j as isize, S::load(scores.add(r * stride + j)));
                *max = S::max(*max, S::select_first(seen, x, S::splat(f32::NEG_INFINITY)));
            }
        }
        let max = max.map(|x| S::max_lane(x));
        let mut sum = [S::splat(0.0); R];
        for j in (0..whole).step_by(S::LANES) {
            for (r, sum) in sum.iter_mut().enumerate() {
                let at = scores.add(r * stride + j);
                let p = S::exp2(S::sub(S::load(at), S::splat(max[r])));
                *sum = S::add(*sum, p);
                S::store(at, p);
            }
        }
        for j in (whole..columns).step_by(S::LANES) {
            for (r, sum) in sum.iter_mut().enumerate() {
                let at = scores.add(r * stride + j);
                let p = S::exp2(S::sub(S::load(at), S::splat(max[r])));
                let p = S::select_first((i + r + 1) as isize - j as isize, p, S::splat(0.0));
                *sum = S::add(*sum, p);
                S::store(at, p);
            }
        }
        for r in 0..R {
            (maxima[r], sums[r]) = (max[r], S::sum(sum[r]));
        }
    }
}

/// `out[r, :] = inverse_sums[r] * sum over j of weights[r, j] values[j, :]`.
///
/// # Safety
/// `weights`: GROUP rows, zero beyond each row's diagonal; `values`: padded rows; `out`: the group's first row.
#[inline(always)]
unsafe fn weigh_values<S: Simd>(
    dims: &RelAttention,
    first: usize,
    weights: *const f32,
    values: *const f32,
    inverse_sums: &[f32; GROUP],
    out: *mut f32,
) {
    for r in (0..GROUP).step_by(S::ROWS) {
        let mut c = 0;
        while c < dims.d_head {
            let width = tile_width((dims.d_head - c).div_ceil(S::LANES));
            // SAFETY: the caller's promise.
            unsafe {
                with_tile!(S, width, weigh_tile(dims, first, r, c, weights, values, inverse_sums, out))
            };
            c += width * S::LANES;
        }
    }
}

/// One tile of [`weigh_values`]: rows `r..r + R`, channels from `c`.
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn weigh_tile<S: Simd, const R: usize, const V: usize>(
    dims: &RelAttention,
    first: usize,
    r: usize,
    c: usize,
    weights: *const f32,
    values: *const f32,
    inverse_sums: &[f32; GROUP],
    out: *mut f32,
) {
    let (d, stride) = (dims.d_head, score_stride(dims));
    // SAFETY: the caller's promise; rows beyond seq and channels beyond d_head are not written.
    unsafe {
        let a = Scalars { ptr: weights.add(r * stride), row: stride as isize, k: 1 };
        let b = Vectors { ptr: values.add(c), k: row_stride::<S>(d) as isize, v: S::LANES as isize };
        let mut acc = [[S::splat(0.0); V]; R];
        accumulate::<S, R, V, V>(&mut acc, a, b, 0, (first + GROUP).min(dims.seq));
        for (t, row) in acc.iter().enumerate().take((dims.seq - first).saturating_sub(r)) {
            let inverse = S::splat(inverse_sums[r + t]);
            for (v, x) in row.iter().enumerate() {
                let at = c + v * S::LANES;
                let to = out.add((r + t) * dims.head_stride() + at);
                S::store_first(to, S::mul(*x, inverse), S::LANES.min(d - at));
            }
        }
    }
}
