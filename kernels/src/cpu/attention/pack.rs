//! Copies between the caller's layouts and what the tiles read: transposed panels, padded rows, scaled queries.
//!
//! A panel holds `LANES` consecutive rows transposed: element (row x, channel c) of a panelled matrix with `rows`
//! channels is at `(x / LANES * rows + c) * LANES + x % LANES`.

use super::{RelAttention, SLAB};
use crate::cpu::simd::Simd;

/// Panels of `n` rows of `d` channels, the last padded with zeros.
///
/// # Safety
/// `from` must hold n rows `stride` apart, `to` n rounded up to whole panels.
#[inline(always)]
pub unsafe fn panels<S: Simd>(from: *const f32, stride: usize, n: usize, d: usize, to: *mut f32) {
    for x in (0..n).step_by(S::LANES) {
        for c in (0..d).step_by(S::LANES) {
            // SAFETY: the caller's promise; rows and channels are cut at n and d.
            unsafe {
                let (rows, cols) = (S::LANES.min(n - x), S::LANES.min(d - c));
                let panel = to.add(x * d + c * S::LANES);
                S::transpose(from.add(x * stride + c), stride, rows, cols, 1.0, panel, S::LANES, S::LANES);
            }
        }
    }
}

/// The inverse of [`panels`] for panels of `panel_rows >= d` channels, times `scale`.
///
/// # Safety
/// `to` must hold n rows `stride` apart; only d elements of each are written.
#[inline(always)]
pub unsafe fn unpack_panels<S: Simd>(
    from: *const f32,
    panel_rows: usize,
    n: usize,
    d: usize,
    scale: f32,
    to: *mut f32,
    stride: usize,
) {
    for x in (0..n).step_by(S::LANES) {
        for c in (0..d).step_by(S::LANES) {
            // SAFETY: the caller's promise; rows and channels are cut at n and d.
            unsafe {
                let (cols, rows) = (S::LANES.min(n - x), S::LANES.min(d - c));
                let panel = from.add(x * panel_rows + c * S::LANES);
                S::transpose(panel, S::LANES, rows, cols, scale, to.add(x * stride + c), stride, rows);
            }
        }
    }
}

/// d rounded up to whole vectors: the stride of padded rows.
#[inline(always)]
pub fn row_stride<S: Simd>(d: usize) -> usize {
    d.next_multiple_of(S::LANES)
}

/// Rows of d channels padded with zeros to [`row_stride`].
///
/// # Safety
/// `from` must hold n rows `stride` apart, `to` n padded rows.
#[inline(always)]
pub unsafe fn rows<S: Simd>(from: *const f32, stride: usize, n: usize, d: usize, to: *mut f32) {
    for x in 0..n {
        for c in (0..d).step_by(S::LANES) {
            // SAFETY: the caller's promise; only channels below d are read.
            unsafe {
                let row = S::load_first(from.add(x * stride + c), S::LANES.min(d - c));
                S::store(to.add(x * row_stride::<S>(d) + c), row);
            }
        }
    }
}

/// Asks for the cache lines of n rows of d channels, to be read or written soon. Rows of one head are too far apart
/// for the machine to guess, and without this a fifth of the time goes into waiting for them.
///
/// # Safety
/// The pointer arithmetic must stay inside one buffer; nothing is read.
#[inline(always)]
pub unsafe fn prefetch_rows<S: Simd>(from: *const f32, stride: usize, n: usize, d: usize) {
    for x in 0..n {
        // SAFETY: the caller's promise.
        unsafe {
            for c in (0..d).step_by(CACHE_LINE) {
                S::prefetch(from.add(x * stride + c));
            }
            // A row that is not aligned to lines ends in one more.
            if !d.is_multiple_of(CACHE_LINE) {
                S::prefetch(from.add(x * stride + d - 1));
            }
        }
    }
}

/// Floats of a cache line.
const CACHE_LINE: usize = 16;

/// d rounded up to what a tile takes as rows: the stride of queries and the height of gradient panels.
#[inline(always)]
pub fn query_stride(d: usize) -> usize {
    d.next_multiple_of(4)
}

/// `to[r, :] = (from[r, :] + bias) * scale` for r < n, padded with zeros to [`query_stride`].
///
/// # Safety
/// `from` must hold n rows `stride` apart, `bias` d elements, `to` n rows.
#[inline(always)]
pub unsafe fn queries<S: Simd>(
    from: *const f32,
    stride: usize,
    n: usize,
    d: usize,
    bias: *const f32,
    scale: f32,
    to: *mut f32,
) {
    let to_stride = query_stride(d);
    for c in (0..d).step_by(S::LANES) {
        // SAFETY: the caller's promise; only channels below d are read and below the stride written.
        unsafe {
            let read = S::LANES.min(d - c);
            let written = S::LANES.min(to_stride - c);
            let (bias, scale) = (S::load_first(bias.add(c), read), S::splat(scale));
            for r in 0..n {
                let x = S::load_first(from.add(r * stride + c), read);
                S::store_first(to.add(r * to_stride + c), S::mul(S::add(x, bias), scale), written);
            }
        }
    }
}

/// One head of `rel` as [`pack_rel`] leaves it.
#[derive(Clone, Copy)]
pub struct PackedRel {
    /// Panels over x = p + [`RelAttention::rel_offset`]: distance 0 is the last lane of the last panel.
    pub panels: *const f32,
    /// Padded rows, by p.
    pub rows: *const f32,
}

impl PackedRel {
    /// The packed form of head `h` inside the workspace.
    ///
    /// # Safety
    /// `workspace` must hold what `pack_rel` wrote.
    #[inline(always)]
    pub unsafe fn of(dims: &RelAttention, workspace: *const f32, h: usize) -> PackedRel {
        // SAFETY: every head has its region of the workspace.
        unsafe {
            let panels = workspace.add(h * dims.packed_rel());
            PackedRel { panels, rows: panels.add(dims.seq_padded() * dims.d_head) }
        }
    }
}

/// Task `task` of the packing phase: one slab of one head of `rel`, both as panels and as rows.
///
/// # Safety
/// `rel` and `workspace` as in the module's table, task below heads * slabs.
#[inline(always)]
pub unsafe fn pack_rel<S: Simd>(dims: &RelAttention, task: usize, rel: *const f32, workspace: *mut f32) {
    let (h, slab) = (task / dims.slabs(), task % dims.slabs());
    let (d, stride, offset) = (dims.d_head, dims.head_stride(), dims.rel_offset());
    let to = (slab + 1) * SLAB;
    // SAFETY: slabs are whole panels, so tasks write disjoint parts of the head's region.
    unsafe {
        let rel = rel.add(h * d);
        let packed = PackedRel::of(dims, workspace, h);
        let panel_base = packed.panels.cast_mut();
        // Lanes before the first row fill whole panels or part of one; they are zero.
        let aligned = offset.next_multiple_of(S::LANES);
        for x in slab * SLAB..aligned.min(to) {
            for c in 0..d {
                let value = if x < offset { 0.0 } else { *rel.add((x - offset) * stride + c) };
                *panel_base.add((x / S::LANES * d + c) * S::LANES + x % S::LANES) = value;
            }
        }
        let from = (slab * SLAB).max(aligned);
        let to = to.min(dims.seq_padded());
        if from < to {
            panels::<S>(rel.add((from - offset) * stride), stride, to - from, d, panel_base.add(from * d));
        }
        let first = (slab * SLAB).max(offset) - offset;
        let last = to.max(offset) - offset;
        let packed_rows = packed.rows.cast_mut().add(first * row_stride::<S>(d));
        rows::<S>(rel.add(first * stride), stride, last - first, d, packed_rows);
    }
}
