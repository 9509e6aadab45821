//! Sums of the squares of what a task of a product wrote, for the norm of a gradient: the tile is still in cache.

use super::Gemm;
use super::tiling::Tiling;

/// Running sums of one row, so that additions do not wait for each other and the compiler can use vectors.
const LANES: usize = 16;

impl Gemm {
    /// The sum over the elements of `c` that task `task` writes of their squares: rows in f32, summed in f64.
    ///
    /// # Safety
    /// `c` is valid for every element that its strides reach, and nobody writes this task's part meanwhile.
    pub unsafe fn sum_of_squares(&self, task: usize, c: *const f32) -> f32 {
        let (g, _) = self.canonical();
        let mut total = 0.0f64;
        for tile in Tiling::of(&g).tiles(&g, task) {
            for row in tile.rows {
                // SAFETY: the tile lies within c.
                unsafe {
                    let start = c.add(tile.batch * g.c[0] + row * g.c[1] + tile.cols.start * g.c[2]);
                    if g.c[2] == 1 {
                        total += f64::from(of_row(std::slice::from_raw_parts(start, tile.cols.len())));
                    } else {
                        let strided = (0..tile.cols.len()).map(|j| f64::from(*start.add(j * g.c[2])));
                        total += strided.map(|x| x * x).sum::<f64>();
                    }
                }
            }
        }
        total as f32
    }
}

fn of_row(row: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_together_give_the_sum_over_c() {
        for (batch, m, n, c) in [
            (1, 300, 130, [0, 130, 1]),
            (2, 33, 70, [33 * 70, 70, 1]),
            (1, 70, 33, [0, 1, 70]),
            (1, 5, 1, [0, 1, 1]),
        ] {
            let k = 64;
            let g = Gemm { batch, m, n, k, a: [m * k, k, 1], b: [0, n, 1], c, accumulate: false };
            let len = g.extents()[2];
            let values: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
            let expected: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            // SAFETY: c has all its elements.
            let parts = (0..g.phases()[0]).map(|t| unsafe { g.sum_of_squares(t, values.as_ptr()) });
            let sum: f64 = parts.map(f64::from).sum();
            assert!((sum / expected - 1.0).abs() < 1e-6, "{g:?}: {sum} and {expected}");
        }
    }
}
