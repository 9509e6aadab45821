//! The one microkernel all eight products are made of: a register tile that sums outer products of broadcast
//! scalars and vectors.
//!
//! `acc[r][v] += a[r, k] * b[k, v]` for k in a range, where `a` is read one scalar at a time with any strides
//! (so a transposed or skewed operand costs nothing) and `b` one vector at a time.

use crate::cpu::simd::Simd;

/// The broadcast operand: element (r, k) is at `ptr + r * row + k * k`.
#[derive(Clone, Copy)]
pub struct Scalars {
    pub ptr: *const f32,
    pub row: isize,
    pub k: isize,
}

/// The vector operand: vector v of step k is at `ptr + k * k + v * v`.
#[derive(Clone, Copy)]
pub struct Vectors {
    pub ptr: *const f32,
    pub k: isize,
    pub v: isize,
}

/// Vectors a register tile is wide at most.
pub const WIDTH: usize = 3;

/// Adds steps `from..to` to the first `ACTIVE` columns of the tile.
///
/// # Safety
/// Both operands must be readable over the tile and steps, and the instruction set of `S` present.
#[inline(always)]
pub unsafe fn accumulate<S: Simd, const R: usize, const V: usize, const ACTIVE: usize>(
    acc: &mut [[S::V; V]; R],
    a: Scalars,
    b: Vectors,
    from: usize,
    to: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for k in from as isize..to as isize {
            let mut column = [S::splat(0.0); V];
            for (v, c) in column.iter_mut().enumerate().take(ACTIVE) {
                *c = S::load(b.ptr.offset(k * b.k + v as isize * b.v));
            }
            for (r, row) in acc.iter_mut().enumerate() {
                let x = S::splat(*a.ptr.offset(r as isize * a.row + k * a.k));
                for v in 0..ACTIVE {
                    row[v] = S::mul_add(x, column[v], row[v]);
                }
            }
        }
    }
}

/// Adds to a tile in memory, or sets where `fresh`, the steps `start[v]..to` of each column v; `start` never falls.
/// Element (r, v) of the tile is the vector at `c + r * c_row + v * c_v`.
///
/// # Safety
/// As [`accumulate`], and the tile must be readable and writable.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn accumulate_staircase<S: Simd, const R: usize, const V: usize>(
    a: Scalars,
    b: Vectors,
    start: [usize; WIDTH],
    to: usize,
    fresh: bool,
    c: *mut f32,
    c_row: isize,
    c_v: isize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::splat(0.0); V]; R];
        if !fresh {
            for (r, row) in acc.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = S::load(c.offset(r as isize * c_row + v as isize * c_v));
                }
            }
        }
        if V > 1 {
            accumulate::<S, R, V, 1>(&mut acc, a, b, start[0], start[1]);
        }
        if V > 2 {
            accumulate::<S, R, V, 2>(&mut acc, a, b, start[1], start[2]);
        }
        accumulate::<S, R, V, V>(&mut acc, a, b, start[V - 1], to);
        for (r, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                S::store(c.offset(r as isize * c_row + v as isize * c_v), *x);
            }
        }
    }
}

/// [`accumulate_staircase`] over `rows` rows (a multiple of 4) and `width` columns (1 to [`WIDTH`]).
///
/// # Safety
/// As [`accumulate_staircase`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub unsafe fn staircase_block<S: Simd>(
    rows: usize,
    width: usize,
    a: Scalars,
    b: Vectors,
    start: [usize; WIDTH],
    to: usize,
    fresh: bool,
    c: *mut f32,
    c_row: isize,
    c_v: isize,
) {
    let mut r = 0;
    while r < rows {
        // SAFETY: the caller's promise, for rows r..r+4 or r..r+8 of it.
        unsafe {
            let a = Scalars { ptr: a.ptr.offset(r as isize * a.row), ..a };
            let c = c.offset(r as isize * c_row);
            if S::ROWS == 8 && r + 8 <= rows {
                match width {
                    3 => accumulate_staircase::<S, 8, 3>(a, b, start, to, fresh, c, c_row, c_v),
                    2 => accumulate_staircase::<S, 8, 2>(a, b, start, to, fresh, c, c_row, c_v),
                    _ => accumulate_staircase::<S, 8, 1>(a, b, start, to, fresh, c, c_row, c_v),
                }
                r += 8;
            } else {
                match width {
                    3 => accumulate_staircase::<S, 4, 3>(a, b, start, to, fresh, c, c_row, c_v),
                    2 => accumulate_staircase::<S, 4, 2>(a, b, start, to, fresh, c, c_row, c_v),
                    _ => accumulate_staircase::<S, 4, 1>(a, b, start, to, fresh, c, c_row, c_v),
                }
                r += 4;
            }
        }
    }
}

/// Calls `$f::<S, ROWS, V>` for a tile of `$width` (1 to [`WIDTH`]) vectors and the rows that suit `S`.
macro_rules! with_tile {
    ($s:ident, $width:expr, $f:ident($($arg:expr),* $(,)?)) => {
        match ($s::ROWS, $width) {
            (8, 3) => $f::<$s, 8, 3>($($arg),*),
            (8, 2) => $f::<$s, 8, 2>($($arg),*),
            (8, _) => $f::<$s, 8, 1>($($arg),*),
            (_, 3) => $f::<$s, 4, 3>($($arg),*),
            (_, 2) => $f::<$s, 4, 2>($($arg),*),
            (_, _) => $f::<$s, 4, 1>($($arg),*),
        }
    };
}
pub(super) use with_tile;

/// Width of the next tile when `left` vectors are to be covered: 3, but 4 is better cut as 2 and 2.
#[inline(always)]
pub fn tile_width(left: usize) -> usize {
    if left == 4 { 2 } else { left.min(WIDTH) }
}
