//! Score tiles shared by both directions: the position product and the sum of it and the content product.
//!
//! A group is [`GROUP`] queries from row `first`. Scores are in base 2: queries carry scale * log2(e).

use super::pack::query_stride;
use super::tile::{Scalars, Vectors, accumulate, tile_width, with_tile};
use super::{GROUP, RelAttention};
use crate::cpu::simd::Simd;

/// Floats before and after each row of scores, so that skewed reads stay inside: groups reach at most
/// GROUP + LANES outside. The leading pad of probabilities' gradients is zero.
pub const MARGIN: usize = 32;

/// Floats from one row of scores to the next.
#[inline(always)]
pub fn score_stride(dims: &RelAttention) -> usize {
    dims.seq_padded() + 2 * MARGIN
}

/// Keys that the group's last row sees, in whole vectors.
#[inline(always)]
pub fn group_columns<S: Simd>(dims: &RelAttention, first: usize) -> usize {
    (first + GROUP).min(dims.seq).next_multiple_of(S::LANES)
}

/// The group's queries as the broadcast operand, from row `r` of the group on.
///
/// # Safety
/// `queries` must hold GROUP rows of [`query_stride`].
#[inline(always)]
pub unsafe fn query_rows(queries: *const f32, d: usize, r: usize) -> Scalars {
    // SAFETY: the caller's promise.
    Scalars { ptr: unsafe { queries.add(r * query_stride(d)) }, row: query_stride(d) as isize, k: 1 }
}

/// `positions[r, x] = sum over c of queries[r, c] * rel[x, c]` for every lane x the group can reach.
///
/// # Safety
/// `queries`: GROUP rows; `panels`: packed rel; `positions`: GROUP rows of [`score_stride`].
#[inline(always)]
pub unsafe fn position_products<S: Simd>(
    dims: &RelAttention,
    first: usize,
    queries: *const f32,
    panels: *const f32,
    positions: *mut f32,
) {
    let (d, padded) = (dims.d_head, dims.seq_padded());
    let begin = padded - group_columns::<S>(dims, first);
    for r in (0..GROUP).step_by(S::ROWS) {
        let mut x = begin;
        while x < padded {
            let width = tile_width((padded - x) / S::LANES);
            // SAFETY: x is a whole panel below seq_padded.
            unsafe {
                let a = query_rows(queries, d, r);
                let b = Vectors { ptr: panels.add(x * d), k: S::LANES as isize, v: (d * S::LANES) as isize };
                let to = positions.add(r * score_stride(dims) + x);
                with_tile!(S, width, product_tile(a, b, d, to, score_stride(dims)));
            }
            x += width * S::LANES;
        }
    }
}

/// `to[r, v] = sum over k < depth of a[r, k] b[k, v]`.
///
/// # Safety
/// As [`accumulate`]; `to` holds R rows of `stride`.
#[inline(always)]
unsafe fn product_tile<S: Simd, const R: usize, const V: usize>(
    a: Scalars,
    b: Vectors,
    depth: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        accumulate::<S, R, V, V>(&mut acc, a, b, 0, depth);
        for (r, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                S::store(to.add(r * stride + v * S::LANES), *x);
            }
        }
    }
}

/// The tile of scores at rows `r..r + R` of the group and keys from `j`: position products along their diagonals,
/// less `base[r]`, plus the content products.
///
/// # Safety
/// `positions` from [`position_products`], `queries` GROUP rows, `keys` panels, `base` GROUP elements.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn score_tile<S: Simd, const R: usize, const V: usize>(
    dims: &RelAttention,
    first: usize,
    r: usize,
    j: usize,
    positions: *const f32,
    base: Option<*const f32>,
    queries: *const f32,
    keys: *const f32,
) -> [[S::V; V]; R] {
    let d = dims.d_head;
    // SAFETY: rows of positions have a margin for lanes beyond the diagonal and for rows beyond seq.
    unsafe {
        // Key j of row i is lane seq_padded - 1 - i + j, so rows shift by one lane each.
        let skewed = positions.add(dims.seq_padded() - 1 + j).sub(first + r);
        let mut acc = [[S::splat(0.0); V]; R];
        for (t, row) in acc.iter_mut().enumerate() {
            for (v, x) in row.iter_mut().enumerate() {
                *x = S::load(skewed.add((r + t) * score_stride(dims) + v * S::LANES).sub(t));
                if let Some(base) = base {
                    *x = S::sub(*x, S::splat(*base.add(r + t)));
                }
            }
        }
        let b = Vectors { ptr: keys.add(j * d), k: S::LANES as isize, v: (d * S::LANES) as isize };
        accumulate::<S, R, V, V>(&mut acc, query_rows(queries, d, r), b, 0, d);
        acc
    }
}
