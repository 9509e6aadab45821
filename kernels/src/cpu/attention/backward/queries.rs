//! Gradients of queries: dq of a group of rows, and with it what du and dv are made of.

use super::Head;
use crate::cpu::attention::pack::row_stride;
use crate::cpu::attention::scores::score_stride;
use crate::cpu::simd::Simd;

/// # Safety
/// All methods: as those of [`Head`] beside its definition.
impl Head {
    /// dq of one group, and its share of du + dv. One vector of eight rows or two of four, with as
    /// many rows of rel beside their sums, are what 32 registers hold.
    #[inline(always)]
    pub unsafe fn query_gradients<S: Simd>(&self, first: usize, at: usize, dq: *mut f32) {
        let (d, mut c) = (self.dims.d_head, 0);
        while c < d {
            let wide = S::ROWS == 8 && d - c > S::LANES;
            // SAFETY: the caller's promise.
            unsafe {
                if S::ROWS == 8 && !wide {
                    self.query_tile::<S, 8, 1>(first, at, 0, c, dq);
                } else if wide {
                    self.query_tile::<S, 4, 2>(first, at, 0, c, dq);
                    self.query_tile::<S, 4, 2>(first, at, 4, c, dq);
                } else {
                    self.query_tile::<S, 4, 1>(first, at, 0, c, dq);
                    self.query_tile::<S, 4, 1>(first, at, 4, c, dq);
                }
            }
            c += if wide { 2 * S::LANES } else { S::LANES };
        }
    }

    /// One tile of [`query_gradients`](Self::query_gradients): R rows from row `r` of the group, channels from `c`.
    /// Rows beyond seq and channels beyond d_head are not written.
    #[inline(always)]
    unsafe fn query_tile<S: Simd, const R: usize, const V: usize>(
        &self,
        first: usize,
        at: usize,
        r: usize,
        c: usize,
        dq: *mut f32,
    ) {
        let Self { dims, .. } = self;
        let i = first + r;
        if i >= dims.seq {
            return;
        }
        // SAFETY: the fields' sizes; key j and row i meet at row j + seq - 1 - i of rel.
        unsafe {
            let stride = row_stride::<S>(dims.d_head);
            let (keys, rel) = (self.key_rows.add(c), self.rel.rows.add(c));
            let ds = self.dscores.add((at + r) * score_stride(dims));
            let mut tile = QuerySum::<S, R, V> { sum: [[S::splat(0.0); V]; R], rel: [[S::splat(0.0); V]; R] };
            let (last, distance) = (dims.seq - 1, dims.seq - 1 - i);
            for t in 1..R {
                tile.rel[R - t] = load_row::<S, V>(rel.add(distance.saturating_sub(t) * stride));
            }
            for j in (0..i).step_by(R) {
                for t in 0..R {
                    let (key, rel) = (keys.add((j + t) * stride), rel.add((distance + j + t) * stride));
                    tile.step(t, ds.add(j + t), score_stride(dims), key, rel);
                }
            }
            for t in 0..R {
                // Beyond the diagonal ds is zero, so any row that exists will do.
                let (key, rel) = (keys.add((i + t).min(last) * stride), rel.add(last * stride));
                tile.step(t, ds.add(i + t), score_stride(dims), key, rel);
            }
            let scale = S::splat(1.0 / (dims.d_head as f32).sqrt());
            for v in 0..V {
                let at = c + v * S::LANES;
                let lanes = S::LANES.min(dims.d_head - at);
                let mut sum = S::load_first(self.both_biases.add(at), lanes);
                for (t, row) in tile.sum.iter().enumerate().take(dims.seq - i) {
                    let x = S::mul(row[v], scale);
                    S::store_first(dq.add((r + t) * dims.qkv_stride() + at), x, lanes);
                    sum = S::add(sum, x);
                }
                S::store_first(self.both_biases.add(at), sum, lanes);
            }
        }
    }

    /// Adds to du what the column sums of ds and `n` keys make.
    #[inline(always)]
    pub unsafe fn add_key_sums<S: Simd>(&self, n: usize) {
        let d = self.dims.d_head;
        let scale = 1.0 / (d as f32).sqrt();
        for c in (0..d).step_by(S::LANES) {
            // SAFETY: the fields' sizes.
            unsafe {
                // Four chains: one would wait for its own sums.
                let mut sums = [S::splat(0.0); 4];
                for j in 0..n {
                    let key = S::load(self.key_rows.add(j * row_stride::<S>(d) + c));
                    sums[j % 4] = S::mul_add(S::splat(*self.column_sums.add(j)), key, sums[j % 4]);
                }
                let sum = S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]));
                let lanes = S::LANES.min(d - c);
                let du = self.du.add(c);
                S::store_first(du, S::mul_add(sum, S::splat(scale), S::load_first(du, lanes)), lanes);
            }
        }
    }
}

/// The sums of a tile of dq, and the rows of rel that its R rows meet at one key: row r is at place t - r (modulo R)
/// in step t, so each step loads one and the others stay where they are.
struct QuerySum<S: Simd, const R: usize, const V: usize> {
    sum: [[S::V; V]; R],
    rel: [[S::V; V]; R],
}

impl<S: Simd, const R: usize, const V: usize> QuerySum<S, R, V> {
    /// Adds one key: `ds` is the first row's, `rel` the row that the first row meets.
    ///
    /// # Safety
    /// All R rows of ds, `ds_stride` apart, and V vectors of `key` and `rel` must be readable.
    #[inline(always)]
    unsafe fn step(&mut self, t: usize, ds: *const f32, ds_stride: usize, key: *const f32, rel: *const f32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.rel[t] = load_row::<S, V>(rel);
            let key = load_row::<S, V>(key);
            for (r, sum) in self.sum.iter_mut().enumerate() {
                let ds = S::splat(*ds.add(r * ds_stride));
                for v in 0..V {
                    sum[v] = S::mul_add(ds, S::add(key[v], self.rel[(t + R - r) % R][v]), sum[v]);
                }
            }
        }
    }
}

/// V vectors from `from`.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn load_row<S: Simd, const V: usize>(from: *const f32) -> [S::V; V] {
    // SAFETY: the caller's promise.
    std::array::from_fn(|v| unsafe { S::load(from.add(v * S::LANES)) })
}
