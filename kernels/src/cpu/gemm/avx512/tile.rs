//! The register tile: up to 14 rows by 32 columns of c, and the prefetches that run beside its arithmetic.
//!
//! A tile keeps 28 accumulators of 16 columns each; every step of k loads two vectors of b and broadcasts one element
//! of a per row. Operands may come from L2 without loss: the core looks about seven steps ahead. What lies further
//! away must be asked for earlier, and the arithmetic leaves room for that: see [`Stream`].

use super::{COLS, LANES, STREAMS, View};
use std::arch::x86_64::*;

/// Steps of k between two looks at the streams.
const GROUP: usize = 4;
/// Lines of memory that will be needed soon, fetched to L2 a few at a time while tiles are computed.
#[derive(Clone, Copy)]
pub struct Stream {
    line: usize,
    /// Start and end of the current row, in bytes as `line`.
    row: usize,
    end: usize,
    row_bytes: usize,
    /// Lines left, and how many to fetch in each group of steps.
    left: usize,
    per_group: usize,
}

impl Stream {
    pub const EMPTY: Stream = Stream { line: 0, row: 0, end: 0, row_bytes: 0, left: 0, per_group: 0 };

    /// The lines of `rows` by `cols` elements of an operand, to be fetched during `tiles` tiles of `k` steps.
    pub fn over(view: View, rows: usize, cols: usize, tiles: usize, k: usize) -> Stream {
        let (rows, width, stride) = match (view.row, view.col) {
            (row, 1) => (rows, cols, row),
            (1, col) => (cols, rows, col),
            _ => return Stream::EMPTY,
        };
        let (rows, width) = if stride == width { (1, rows * width) } else { (rows, width) };
        let row = view.ptr as usize & !63;
        let end = view.ptr as usize + 4 * width;
        let left = rows * (end - row).div_ceil(64);
        let groups = (tiles * k.div_ceil(GROUP)).max(1);
        Stream { line: row, row, end, row_bytes: 4 * stride, left, per_group: left.div_ceil(groups) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fetch(&mut self) {
        let now = self.per_group.min(self.left);
        self.left -= now;
        for _ in 0..now {
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(self.line));
            let next = self.line + 64;
            let wrap = if next >= self.end { self.row_bytes } else { 0 };
            self.row += wrap;
            self.end += wrap;
            self.line = if wrap > 0 { self.row } else { next };
        }
    }
}

/// One register tile of c.
pub struct Tile {
    pub k: usize,
    pub a: View,
    /// Rows of 16 or 32 columns, `b_row` apart.
    pub b: *const f32,
    pub b_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// 1 to 32.
    pub cols: usize,
    pub accumulate: bool,
    /// Steps of k that the prefetches of a and b run ahead.
    pub ahead: usize,
}

impl Tile {
    /// # Safety
    /// 1 <= rows <= 14; every element of the tile must be valid; one of a's strides is 1.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn run(&self, rows: usize, streams: &mut [Stream; STREAMS]) {
        macro_rules! by_rows {
            ($vectors:literal, $unit:literal, $masked:literal; $($rows:literal)*) => {
                match rows {
                    // SAFETY: the caller's.
                    $($rows => unsafe { self.compute::<$rows, $vectors, $unit, $masked>(streams) },)*
                    _ => unreachable!("a register tile has 1 to 14 rows, not {rows}"),
                }
            };
        }
        match (self.cols > LANES, self.a.row == 1, self.cols.is_multiple_of(LANES)) {
            (false, false, true) => by_rows!(1, false, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (false, false, false) => by_rows!(1, false, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (false, true, true) => by_rows!(1, true, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (false, true, false) => by_rows!(1, true, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, false, true) => by_rows!(2, false, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, false, false) => by_rows!(2, false, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, true, true) => by_rows!(2, true, false; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
            (true, true, false) => by_rows!(2, true, true; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        }
    }

    /// # Safety
    /// R rows and at most V * 16 columns (more than (V-1) * 16) must be valid; UNIT says that a's rows are adjacent,
    /// MASKED that the last vector is not full.
    #[target_feature(enable = "avx512f")]
    unsafe fn compute<const R: usize, const V: usize, const UNIT: bool, const MASKED: bool>(
        &self,
        streams: &mut [Stream; STREAMS],
    ) {
        debug_assert!(self.cols <= COLS);
        let (a_row, a_col) = if UNIT { (1, self.a.col) } else { (self.a.row, 1) };
        let b_row = self.b_row;
        let tail = if MASKED { mask_of(self.cols - (V - 1) * LANES) } else { !0 };
        let mask = |v: usize| if v + 1 == V { tail } else { !0 };
        let (a_ahead, b_ahead) = (self.ahead * a_col, self.ahead * b_row);
        let mut acc = [[_mm512_setzero_ps(); V]; R];
        let (mut a, mut b) = (self.a.ptr, self.b);
        let mut c_line = self.c.cast_const();
        let c_last = c_line.wrapping_add((R - 1) * self.c_row);
        let c_rows = (R * GROUP).div_ceil(self.k.max(1)).max(1);
        // SAFETY: k steps of R elements of a and V masked vectors of b, R masked rows of c: all within the tile;
        // prefetches may name any address.
        unsafe {
            let mut left = self.k;
            while left > 0 {
                for _ in 0..c_rows {
                    for v in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(c_line.wrapping_add(v * LANES).cast());
                    }
                    c_line = if c_line < c_last { c_line.wrapping_add(self.c_row) } else { c_last };
                }
                for stream in streams.iter_mut() {
                    stream.fetch();
                }
                let now = left.min(GROUP);
                left -= now;
                for _ in 0..now {
                    let mut columns = [_mm512_setzero_ps(); V];
                    for (v, column) in columns.iter_mut().enumerate() {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(b_ahead + v * LANES).cast());
                        *column = if MASKED {
                            _mm512_maskz_loadu_ps(mask(v), b.add(v * LANES))
                        } else {
                            _mm512_loadu_ps(b.add(v * LANES))
                        };
                    }
                    if UNIT {
                        _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(a_ahead).cast());
                        _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(a_ahead + R - 1).cast());
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

/// The first `count` lanes, count <= 16.
pub fn mask_of(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}
