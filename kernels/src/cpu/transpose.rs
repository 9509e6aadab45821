//! Transposes of f32 matrices, blocked so that both sides are read and written by whole cache lines.

const BLOCK: usize = 16;

/// dst[j * rows + i] = src[i * cols + j], for a matrix of `rows` by `cols`.
///
/// # Panics
/// If a slice has not rows * cols elements.
pub fn transpose(src: &[f32], rows: usize, cols: usize, dst: &mut [f32]) {
    assert!(src.len() == rows * cols && dst.len() == rows * cols, "a matrix of {rows} by {cols}");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512, and the slices hold the whole matrix.
        return unsafe { x86::transpose(src, rows, cols, dst) };
    }
    for i0 in (0..rows).step_by(BLOCK) {
        for j0 in (0..cols).step_by(BLOCK) {
            block(src, rows, cols, dst, i0, j0);
        }
    }
}

/// The block that starts at row `i0` and column `j0`, element by element.
fn block(src: &[f32], rows: usize, cols: usize, dst: &mut [f32], i0: usize, j0: usize) {
    for j in j0..(j0 + BLOCK).min(cols) {
        for i in i0..(i0 + BLOCK).min(rows) {
            dst[j * rows + i] = src[i * cols + j];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::BLOCK;
    use crate::cpu::gemm::transpose_16x16;
    use std::arch::x86_64::{_mm512_loadu_ps, _mm512_storeu_ps};

    #[target_feature(enable = "avx512f")]
    pub fn transpose(src: &[f32], rows: usize, cols: usize, dst: &mut [f32]) {
        for i0 in (0..rows).step_by(BLOCK) {
            for j0 in (0..cols).step_by(BLOCK) {
                if i0 + BLOCK > rows || j0 + BLOCK > cols {
                    super::block(src, rows, cols, dst, i0, j0);
                    continue;
                }
                let from = |r: usize| src[(i0 + r) * cols + j0..][..BLOCK].as_ptr();
                // SAFETY: 16 elements from there lie in the slice.
                let loaded = std::array::from_fn(|r| unsafe { _mm512_loadu_ps(from(r)) });
                for (c, column) in transpose_16x16(loaded).into_iter().enumerate() {
                    let to = dst[(j0 + c) * rows + i0..][..BLOCK].as_mut_ptr();
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_ps(to, column) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn every_element_changes_its_place() {
        for (rows, cols) in [(1, 1), (16, 16), (17, 33), (48, 64), (5, 100), (31, 16)] {
            let src: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
            let mut dst = vec![f32::NAN; rows * cols];
            transpose(&src, rows, cols, &mut dst);
            for i in 0..rows {
                for j in 0..cols {
                    assert_eq!(dst[j * rows + i], src[i * cols + j], "{rows} by {cols}: {i}, {j}");
                }
            }
        }
    }
}
