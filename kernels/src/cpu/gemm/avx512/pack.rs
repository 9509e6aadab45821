//! Packing: operands copied into the order in which the register tile reads them.

use super::tile::mask_of;
use super::{COLS, LANES, View};
use std::arch::x86_64::*;

/// Lines that prefetches of the same row or column run ahead.
const AHEAD: usize = 8;

/// Copies `rows` rows of k columns, which are contiguous (`a.col` is 1), to rows `stride` apart.
///
/// # Safety
/// `a` must hold the elements, `dst` rows * stride, and stride must be at least k rounded up to 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn copy_rows(a: View, rows: usize, k: usize, dst: *mut f32, stride: usize) {
    for i in 0..rows {
        for p in (0..k).step_by(LANES) {
            // SAFETY: masked lanes are not read; a row's stores end before the next row.
            unsafe {
                let values = _mm512_maskz_loadu_ps(mask_of(LANES.min(k - p)), a.at(i, p).ptr);
                _mm512_storeu_ps(dst.add(i * stride + p), values);
            }
        }
    }
}

/// A block of rows of a, and where the register tile reads its steps of k.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub start: usize,
    pub rows: usize,
    pub view: View,
}

impl Default for Panel {
    fn default() -> Panel {
        Panel { start: 0, rows: 0, view: View { ptr: std::ptr::null(), row: 0, col: 0 } }
    }
}

/// Packs blocks of rows of a by columns to their panels: each step of k is `rows` adjacent floats.
///
/// # Safety
/// `a` must hold the rows and k columns; the panels must be writable, in order, with 16 floats of room after each.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_a(a: View, k: usize, panels: &[Panel]) {
    // SAFETY: the caller's.
    unsafe {
        if a.row == 1 {
            // All blocks of one step of k together: they are neighbours in memory.
            for p in 0..k {
                for panel in panels {
                    let source = a.at(panel.start, p).ptr;
                    _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * a.col).cast());
                    let values = _mm512_maskz_loadu_ps(mask_of(panel.rows), source);
                    _mm512_storeu_ps(panel.view.ptr.cast_mut().add(p * panel.rows), values);
                }
            }
        } else {
            for panel in panels {
                let source = a.at(panel.start, 0);
                let columns = View { row: a.col, col: a.row, ..source };
                pack(columns, k, panel.rows, panel.view.ptr.cast_mut(), panel.rows);
            }
        }
    }
}

/// Packs k rows of n columns of b as panels of 32 columns, the last of 16 or 32, zero beyond n.
///
/// # Safety
/// `b` must hold k by n elements, `dst` k rows of n rounded up to 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn pack_b(b: View, k: usize, n: usize, dst: *mut f32) {
    let full = n / COLS * COLS;
    let width = (n - full).next_multiple_of(LANES);
    // SAFETY: every vector of a panel is written in every row.
    unsafe {
        if b.col == 1 {
            for p in 0..k {
                let row = b.at(p, 0).ptr;
                for j in (0..full).step_by(COLS) {
                    let source = row.add(j);
                    _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * b.row).cast());
                    _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * b.row + LANES).cast());
                    let place = dst.add(j * k + p * COLS);
                    _mm512_storeu_ps(place, _mm512_loadu_ps(source));
                    _mm512_storeu_ps(place.add(LANES), _mm512_loadu_ps(source.add(LANES)));
                }
                for j in (full..n).step_by(LANES) {
                    let values = _mm512_maskz_loadu_ps(mask_of(LANES.min(n - j)), row.add(j));
                    _mm512_storeu_ps(dst.add(full * k + p * width + j - full), values);
                }
            }
        } else {
            for j in (0..n).step_by(LANES) {
                let panel = j / COLS * COLS;
                let stride = if panel < full { COLS } else { width };
                pack(b.at(0, j), k, LANES.min(n - j), dst.add(panel * k + j - panel), stride);
            }
        }
    }
}

/// dst[p * stride + j] = src[p, j] for p in 0..k, j in 0..width, width <= 16. Each row is stored 16 wide with zeros
/// after `width`, in order of p, so a stride below 16 leaves dense rows and up to 15 floats of zeros after the last.
///
/// # Safety
/// `src` must hold k by width elements; `dst` must take (k - 1) * stride + 16.
#[target_feature(enable = "avx512f")]
unsafe fn pack(src: View, k: usize, width: usize, dst: *mut f32, stride: usize) {
    // SAFETY: masked lanes are not read; the rest is the caller's.
    unsafe {
        if src.row == 1 {
            for p in (0..k).step_by(LANES) {
                let deep = LANES.min(k - p);
                for j in 0..width {
                    _mm_prefetch::<_MM_HINT_T0>(src.at(0, j).ptr.wrapping_add(p + AHEAD * LANES).cast());
                }
                let depth_mask = mask_of(deep);
                let mut rows = [_mm512_setzero_ps(); LANES];
                for (j, row) in rows.iter_mut().enumerate() {
                    if j < width {
                        *row = _mm512_maskz_loadu_ps(depth_mask, src.at(p, j).ptr);
                    }
                }
                let columns = transpose_16x16(rows);
                if deep == LANES {
                    for (q, column) in columns.iter().enumerate() {
                        _mm512_storeu_ps(dst.add((p + q) * stride), *column);
                    }
                } else {
                    for (q, column) in columns.iter().enumerate().take(deep) {
                        _mm512_storeu_ps(dst.add((p + q) * stride), *column);
                    }
                }
            }
        } else {
            for p in 0..k {
                let mut row = [0.0f32; LANES];
                for (j, value) in row.iter_mut().enumerate().take(width) {
                    *value = *src.at(p, j).ptr;
                }
                _mm512_storeu_ps(dst.add(p * stride), _mm512_loadu_ps(row.as_ptr()));
            }
        }
    }
}

/// Transposes a 16 by 16 block held as rows.
#[target_feature(enable = "avx512f")]
pub fn transpose_16x16(r: [__m512; 16]) -> [__m512; 16] {
    let zero = _mm512_setzero_ps();
    let mut t = [zero; 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // u[4 i + c]: columns c, c+4, c+8, c+12 of rows 4i..4i+4, one per 128-bit lane.
    let mut u = [zero; 16];
    for i in 0..4 {
        let pair = |x: __m512, y: __m512| (_mm512_castps_pd(x), _mm512_castps_pd(y));
        let (lo0, lo1) = pair(t[4 * i], t[4 * i + 2]);
        let (hi0, hi1) = pair(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo0, lo1));
        u[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo0, lo1));
        u[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(hi0, hi1));
        u[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(hi0, hi1));
    }
    let mut out = [zero; 16];
    for c in 0..4 {
        let even01 = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
        let odd01 = _mm512_shuffle_f32x4::<0xdd>(u[c], u[4 + c]);
        let even23 = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
        let odd23 = _mm512_shuffle_f32x4::<0xdd>(u[8 + c], u[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even01, even23);
        out[c + 8] = _mm512_shuffle_f32x4::<0xdd>(even01, even23);
        out[c + 4] = _mm512_shuffle_f32x4::<0x88>(odd01, odd23);
        out[c + 12] = _mm512_shuffle_f32x4::<0xdd>(odd01, odd23);
    }
    out
}
