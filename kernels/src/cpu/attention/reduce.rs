//! The last backward phase: partial sums of the units, added in unit order, into the caller's layouts.

use super::pack::query_stride;
use super::{RelAttention, SLAB};
use crate::cpu::simd::MAX_LANES;
use crate::cpu::simd::Simd;
use std::f32::consts::LN_2;

/// One unit's region of the workspace. Panels have [`query_stride`] channels and lack the factor ln 2 that undoes
/// the base of the scores (except dval).
pub struct Partial {
    /// Panels over the lanes of packed rel.
    pub drel: *mut f32,
    /// d_head elements each.
    pub du: *mut f32,
    pub dv: *mut f32,
    /// Panels of dk and dval, where the rows of a batch entry are cut into chunks.
    pub keys_and_values: Option<(*mut f32, *mut f32)>,
}

fn panel_elements(dims: &RelAttention) -> usize {
    dims.seq_padded() * query_stride(dims.d_head)
}

/// Floats of one unit's partial sums.
pub fn partial_elements(dims: &RelAttention) -> usize {
    let panels = if dims.backward_chunks() > 1 { 3 } else { 1 };
    panels * panel_elements(dims) + 2 * dims.d_padded()
}

impl Partial {
    /// The region of unit `unit`.
    ///
    /// # Safety
    /// `workspace` must have the size of the backward workspace.
    #[inline(always)]
    pub unsafe fn of(dims: &RelAttention, workspace: *mut f32, unit: usize) -> Partial {
        // SAFETY: the workspace has a region for every unit.
        unsafe {
            let drel = workspace.add(dims.partials_offset() + unit * partial_elements(dims));
            let du = drel.add(panel_elements(dims));
            let dv = du.add(dims.d_padded());
            let keys = dv.add(dims.d_padded());
            let cut = dims.backward_chunks() > 1;
            Partial { drel, du, dv, keys_and_values: cut.then(|| (keys, keys.add(panel_elements(dims)))) }
        }
    }
}

/// One task: a slab of drel of one head (the first also du and dv), or a slab of dk and dval of one batch and head.
///
/// # Safety
/// As [`RelAttention::backward`], phase 2; `gradients`: drel, du, dv.
#[inline(always)]
pub unsafe fn run<S: Simd>(
    dims: &RelAttention,
    task: usize,
    workspace: *mut f32,
    dqkv: *mut f32,
    gradients: [*mut f32; 3],
) {
    let (slabs, chunks, groups, d) = (dims.slabs(), dims.backward_chunks(), dims.batch_groups(), dims.d_head);
    let lanes = |slab: usize| slab * SLAB..((slab + 1) * SLAB).min(dims.seq_padded());
    let rel_tasks = dims.heads * slabs;
    // SAFETY: the caller's promise; tasks write disjoint rows.
    unsafe {
        if task < rel_tasks {
            let (h, slab) = (task / slabs, task % slabs);
            let [drel, du, dv] = gradients;
            let units = (0..groups * chunks).map(|k| (k / chunks * dims.heads + h) * chunks + k % chunks);
            let partials = || units.clone().map(|unit| Partial::of(dims, workspace, unit));
            for x in lanes(slab).step_by(S::LANES) {
                let skip = dims.rel_offset().saturating_sub(x).min(S::LANES);
                let to = drel.offset(
                    (x + skip) as isize * dims.head_stride() as isize
                        - (dims.rel_offset() * dims.head_stride()) as isize
                        + (h * d) as isize,
                );
                if skip < S::LANES {
                    let lanes = (skip, S::LANES - skip);
                    sum_panel::<S>(dims, partials().map(|p| p.drel), x, lanes, LN_2, to, dims.head_stride());
                }
            }
            if slab == 0 {
                sum_rows::<S>(d, partials().map(|p| p.du), du.add(h * d));
                sum_rows::<S>(d, partials().map(|p| p.dv), dv.add(h * d));
            }
        } else {
            let (bh, slab) = ((task - rel_tasks) / slabs, (task - rel_tasks) % slabs);
            let (b, h) = (bh / dims.heads, bh % dims.heads);
            for x in lanes(slab).step_by(S::LANES) {
                if x >= dims.seq {
                    break;
                }
                // Chunks that end before a key have nothing to say about it, and have written nothing.
                let partials = || {
                    let reaching = (0..chunks).filter(move |&chunk| dims.chunk_rows(chunk, chunks).end > x);
                    reaching.map(move |chunk| Partial::of(dims, workspace, bh * chunks + chunk))
                };
                let keys = partials().filter_map(|p| p.keys_and_values).map(|both| both.0);
                let values = partials().filter_map(|p| p.keys_and_values).map(|both| both.1);
                let stride = dims.qkv_stride();
                let dk = dqkv.add((b * dims.seq + x) * stride + dims.head_stride() + h * d);
                let lanes = (0, S::LANES.min(dims.seq - x));
                sum_panel::<S>(dims, keys, x, lanes, LN_2, dk, stride);
                sum_panel::<S>(dims, values, x, lanes, 1.0, dk.add(dims.head_stride()), stride);
            }
        }
    }
}

/// Sums the panel at lane `x` of all `panels` and writes `lanes.1` of its lanes, from lane `lanes.0`, as rows.
///
/// # Safety
/// Panels cover `x`; `to` holds as many rows, `stride` apart.
#[inline(always)]
unsafe fn sum_panel<S: Simd>(
    dims: &RelAttention,
    panels: impl Iterator<Item = *mut f32> + Clone,
    x: usize,
    lanes: (usize, usize),
    scale: f32,
    to: *mut f32,
    stride: usize,
) {
    let mut sums = [0.0_f32; MAX_LANES * MAX_LANES];
    for c in (0..dims.d_head).step_by(S::LANES) {
        let channels = S::LANES.min(dims.d_head - c);
        // SAFETY: the caller's promise; `sums` holds LANES vectors.
        unsafe {
            for k in 0..channels {
                let mut sum = S::splat(0.0);
                for panel in panels.clone() {
                    let at = x * query_stride(dims.d_head) + (c + k) * S::LANES;
                    sum = S::add(sum, S::load(panel.add(at)));
                }
                S::store(sums.as_mut_ptr().add(k * S::LANES), sum);
            }
            let from = sums.as_ptr().add(lanes.0);
            S::transpose(from, S::LANES, channels, lanes.1, scale, to.add(c), stride, channels);
        }
    }
}

/// `to = sum of parts`, d elements.
///
/// # Safety
/// Every part and `to` hold d elements.
#[inline(always)]
unsafe fn sum_rows<S: Simd>(d: usize, parts: impl Iterator<Item = *mut f32> + Clone, to: *mut f32) {
    for c in (0..d).step_by(S::LANES) {
        let lanes = S::LANES.min(d - c);
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = S::splat(0.0);
            for part in parts.clone() {
                sum = S::add(sum, S::load_first(part.add(c), lanes));
            }
            S::store_first(to.add(c), sum, lanes);
        }
    }
}
