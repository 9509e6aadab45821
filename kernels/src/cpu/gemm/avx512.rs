//! The product kernel for AVX-512: register tiles of up to 14 rows by 32 columns over packed or direct operands.
//!
//! A tile keeps 28 accumulators of 16 columns each; every step of k loads two vectors of b and broadcasts one element
//! of a per row. Tails of rows are other instances of the same tile, tails of columns are masked, so no shape falls
//! back to scalar code. Operands are packed only where reading them in place would cost more (see `run`): the small
//! models of a sweep have products that live in L1 or L2, where packing would be most of the time.

use super::Gemm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::LazyLock;

/// Rows of a register tile.
const ROWS: usize = 14;
const LANES: usize = 16;
/// Columns of a register tile, and of a packed panel of b.
const COLS: usize = 2 * LANES;
/// Steps of k taken at once: a packed a panel (21 KiB) then stays in L1.
const MAX_K: usize = 384;
/// Columns of b packed at once: with MAX_K rows 384 KiB.
const MAX_COLS: usize = 256;
/// Row blocks of a packed at once: with MAX_K columns 252 KiB; both together stay in L2.
const MAX_BLOCKS: usize = 12;
/// Steps of k that prefetches run ahead.
const AHEAD: usize = 8;

static AVAILABLE: LazyLock<bool> = LazyLock::new(|| is_x86_feature_detected!("avx512f"));

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { a: Vec::new(), b: Vec::new() }) };
}

/// Packing space of one thread.
struct Scratch {
    a: Vec<__m512>,
    b: Vec<__m512>,
}

/// From this row stride of `a` on (2 KiB), 14 rows read in place compete for the same lines of L1.
const FAR_ROWS: usize = 512;
/// From this many elements of `c` on, an `a` whose columns are contiguous is better packed for all of `c` at once.
const LARGE_C: usize = 1 << 14;

/// Whether this kernel takes the product, by shape and CPU only. It is ahead of crate `gemm` where packing matters
/// (measured by `examples/gemm_speed.rs`); large products and those with hardly any columns are the crate's.
pub fn handles(g: &Gemm) -> bool {
    let large = if g.a[2] == 1 { g.a[1] >= FAR_ROWS } else { g.m * g.n >= LARGE_C };
    *AVAILABLE && g.c[2] == 1 && g.n >= 4 && !large
}

/// The place and strides of an operand.
#[derive(Clone, Copy)]
struct View {
    ptr: *const f32,
    row: usize,
    col: usize,
}

impl View {
    /// # Safety
    /// The element must lie in the operand.
    unsafe fn at(self, row: usize, col: usize) -> View {
        // SAFETY: the caller's.
        View { ptr: unsafe { self.ptr.add(row * self.row + col * self.col) }, ..self }
    }
}

/// c = a * b (+ c) for the first matrix of the batch.
///
/// # Safety
/// The CPU has AVX-512 and c's columns are contiguous ([`handles`]); pointers are as for [`Gemm::run`].
pub unsafe fn run(g: &Gemm, a: *const f32, b: *const f32, c: *mut f32) {
    let a = View { ptr: a, row: g.a[1], col: g.a[2] };
    let b = View { ptr: b, row: g.b[1], col: g.b[2] };
    // SAFETY: the caller's.
    SCRATCH.with_borrow_mut(|scratch| unsafe { blocked(g, a, b, c, scratch) });
}

/// # Safety
/// As [`run`].
#[target_feature(enable = "avx512f")]
unsafe fn blocked(g: &Gemm, a: View, b: View, c: *mut f32, scratch: &mut Scratch) {
    let row_blocks = g.m.div_ceil(ROWS);
    let block_start = |block: usize| g.m * block / row_blocks;
    // b in place: when it is read hardly more than once, or when its rows are dense anyway.
    let direct_b = b.col == 1 && (row_blocks <= 2 || (g.n <= COLS && b.row <= COLS));
    // a in place: when it is read once, or when its rows are streams (see `handles`).
    let direct_a = a.col == 1 || (a.row == 1 && g.n <= COLS);
    let k_step = g.k.div_ceil(g.k.div_ceil(MAX_K).max(1)).next_multiple_of(LANES).max(LANES);
    for k0 in (0..g.k.max(1)).step_by(k_step) {
        let k = k_step.min(g.k - k0);
        for n0 in (0..g.n).step_by(MAX_COLS) {
            let n = MAX_COLS.min(g.n - n0);
            // SAFETY: all ranges lie within the operands; the scratch is sized for the panels written to it.
            unsafe {
                let b = b.at(k0, n0);
                if !direct_b {
                    reserve(&mut scratch.b, k * n.div_ceil(LANES));
                    pack_b(b, k, n, scratch.b.as_mut_ptr().cast());
                }
                for first in (0..row_blocks).step_by(MAX_BLOCKS) {
                    let blocks = first..(first + MAX_BLOCKS).min(row_blocks);
                    let origin = block_start(first);
                    // Panels lie behind each other, each with 16 floats of room for its last store.
                    let panel_at = |block: usize| (block_start(block) - origin) * k + (block - first) * LANES;
                    if !direct_a {
                        reserve(&mut scratch.a, panel_at(blocks.end).div_ceil(LANES));
                        let panels = blocks
                            .clone()
                            .map(|block| (block_start(block), block_start(block + 1), panel_at(block)));
                        pack_a(a.at(0, k0), k, panels, scratch.a.as_mut_ptr().cast());
                    }
                    for block in blocks {
                        let i0 = block_start(block);
                        let rows = block_start(block + 1) - i0;
                        let a = if direct_a {
                            a.at(i0, k0)
                        } else {
                            View {
                                ptr: scratch.a.as_ptr().cast::<f32>().add(panel_at(block)),
                                row: 1,
                                col: rows,
                            }
                        };
                        for j in (0..n).step_by(COLS) {
                            let cols = COLS.min(n - j);
                            let (b, b_row) = if direct_b {
                                (b.at(0, j).ptr, b.row)
                            } else {
                                (scratch.b.as_ptr().cast::<f32>().add(j * k), cols.next_multiple_of(LANES))
                            };
                            let c = c.add(i0 * g.c[1] + n0 + j);
                            let tile = Tile {
                                k,
                                a,
                                b,
                                b_row,
                                c,
                                c_row: g.c[1],
                                cols,
                                accumulate: g.accumulate || k0 > 0,
                            };
                            tile.run(rows);
                        }
                    }
                }
            }
        }
    }
}

fn reserve(space: &mut Vec<__m512>, vectors: usize) {
    if space.len() < vectors {
        // SAFETY: all bits zero is a value of __m512.
        space.resize(vectors, unsafe { std::mem::zeroed() });
    }
}

/// Packs the rows `start..end` of a as panels whose steps of k are `end - start` adjacent floats.
///
/// # Safety
/// `a` must hold the rows and k columns; `dst` must take each panel at its place, and 16 floats more.
#[target_feature(enable = "avx512f")]
unsafe fn pack_a(
    a: View,
    k: usize,
    panels: impl Iterator<Item = (usize, usize, usize)> + Clone,
    dst: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        if a.row == 1 {
            // All panels of one step of k together: they are neighbours in memory.
            for p in 0..k {
                for (start, end, at) in panels.clone() {
                    let source = a.at(start, p).ptr;
                    _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * a.col).cast());
                    let values = _mm512_maskz_loadu_ps(mask_of(end - start), source);
                    _mm512_storeu_ps(dst.add(at + p * (end - start)), values);
                }
            }
        } else {
            for (start, end, at) in panels {
                let source = a.at(start, 0);
                pack(View { row: a.col, col: a.row, ..source }, k, end - start, dst.add(at), end - start);
            }
        }
    }
}

/// Packs k rows of n columns of b as panels of 32 columns, the last of 16 or 32, zero beyond n.
///
/// # Safety
/// `b` must hold k by n elements, `dst` k rows of n rounded up to 16.
#[target_feature(enable = "avx512f")]
unsafe fn pack_b(b: View, k: usize, n: usize, dst: *mut f32) {
    // SAFETY: every group of 16 columns of a panel is written in every row.
    unsafe {
        let groups = (0..n).step_by(LANES).map(|j| {
            let panel = j / COLS * COLS;
            let width = COLS.min((n - panel).next_multiple_of(LANES));
            (j, width, panel * k + j - panel)
        });
        if b.col == 1 {
            for p in 0..k {
                for (j, width, at) in groups.clone() {
                    let source = b.at(p, j).ptr;
                    _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * b.row).cast());
                    let values = _mm512_maskz_loadu_ps(mask_of(LANES.min(n - j)), source);
                    _mm512_storeu_ps(dst.add(at + p * width), values);
                }
            }
        } else {
            for (j, width, at) in groups {
                pack(b.at(0, j), k, LANES.min(n - j), dst.add(at), width);
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
                let depth_mask = mask_of(deep);
                let mut rows = [_mm512_setzero_ps(); LANES];
                for (j, row) in rows.iter_mut().enumerate() {
                    if j < width {
                        *row = _mm512_maskz_loadu_ps(depth_mask, src.at(p, j).ptr);
                    }
                }
                let columns = transpose(rows);
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

/// The first `count` lanes, count <= 16.
fn mask_of(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// Transposes a 16 by 16 block held as rows.
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512; 16]) -> [__m512; 16] {
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

/// One register tile of c.
struct Tile {
    k: usize,
    a: View,
    /// Rows of 16 or 32 columns, `b_row` apart.
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    /// 1 to 32.
    cols: usize,
    accumulate: bool,
}

impl Tile {
    /// # Safety
    /// 1 <= rows <= 14; every element of the tile must be valid.
    #[target_feature(enable = "avx512f")]
    unsafe fn run(&self, rows: usize) {
        macro_rules! by_rows {
            ($vectors:literal, $unit:literal; $($rows:literal)*) => {
                match rows {
                    // SAFETY: the caller's.
                    $($rows => unsafe { self.compute::<$rows, $vectors, $unit>() },)*
                    _ => unreachable!("a register tile has 1 to 14 rows, not {rows}"),
                }
            };
        }
        match (self.cols > LANES, self.a.row == 1) {
            (false, false) => by_rows!(1, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (false, true) => by_rows!(1, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, false) => by_rows!(2, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, true) => by_rows!(2, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        }
    }

    /// # Safety
    /// R rows and at most V * 16 columns (more than (V-1) * 16) must be valid; UNIT says that a's rows are adjacent.
    #[target_feature(enable = "avx512f")]
    unsafe fn compute<const R: usize, const V: usize, const UNIT: bool>(&self) {
        let a_row = if UNIT { 1 } else { self.a.row };
        let (a_col, b_row) = (self.a.col, self.b_row);
        let tail = mask_of(self.cols - (V - 1) * LANES);
        let mask = |v: usize| if v + 1 == V { tail } else { !0 };
        let mut acc = [[_mm512_setzero_ps(); V]; R];
        let (mut a, mut b) = (self.a.ptr, self.b);
        // SAFETY: k steps of R elements of a and V masked vectors of b, R masked rows of c: all within the tile;
        // prefetches may name any address.
        unsafe {
            for _ in 0..self.k {
                let mut columns = [_mm512_setzero_ps(); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * b_row + v * LANES).cast());
                    *column = _mm512_maskz_loadu_ps(mask(v), b.add(v * LANES));
                }
                if UNIT {
                    _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(AHEAD * a_col).cast());
                }
                for (i, row) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i * a_row));
                    for (sum, column) in row.iter_mut().zip(&columns) {
                        *sum = _mm512_fmadd_ps(x, *column, *sum);
                    }
                }
                a = a.wrapping_add(a_col);
                b = b.wrapping_add(b_row);
            }
            for (i, row) in acc.iter().enumerate() {
                for (v, sum) in row.iter().enumerate() {
                    let place = self.c.add(i * self.c_row + v * LANES);
                    let mut value = *sum;
                    if self.accumulate {
                        value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask(v), place), value);
                    }
                    _mm512_mask_storeu_ps(place, mask(v), value);
                }
            }
        }
    }
}
