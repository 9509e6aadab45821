//! Multiply-adds that need nothing but registers: the most arithmetic that a core can do, for calibration.

use std::hint::black_box;

/// Sums that do not wait for each other: more than the latency of a multiply-add times the units that do them.
const SUMS: usize = 12;

/// Does `rounds` rounds of multiply-adds with the widest vectors of this CPU, and returns their FLOPs.
pub fn multiply_adds(rounds: usize) -> u64 {
    let lanes = run(rounds);
    2 * (rounds * SUMS * lanes) as u64
}

#[cfg(target_arch = "x86_64")]
fn run(rounds: usize) -> usize {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn wide(rounds: usize) {
        let mut sums = [_mm512_set1_ps(black_box(0.5)); SUMS];
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(1e-3)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow(rounds: usize) {
        let mut sums = [_mm256_set1_ps(black_box(0.5)); SUMS];
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: this CPU has the feature that the function is compiled for.
        unsafe { wide(rounds) };
        16
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: this CPU has the features that the function is compiled for.
        unsafe { narrow(rounds) };
        8
    } else {
        portable(rounds)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn run(rounds: usize) -> usize {
    portable(rounds)
}

/// Multiplies and adds of four lanes, as the compiler makes vectors of them.
fn portable(rounds: usize) -> usize {
    let mut sums = [[black_box(0.5f32); 4]; SUMS];
    let (x, y) = (black_box(0.999f32), black_box(1e-3f32));
    for _ in 0..rounds {
        for lane in sums.iter_mut().flatten() {
            *lane = *lane * x + y;
        }
    }
    black_box(sums);
    4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flops_grow_with_rounds() {
        let one = multiply_adds(1);
        assert!(one >= 2 * 4 * SUMS as u64);
        assert_eq!(multiply_adds(10), 10 * one);
        assert_eq!(portable(3), 4);
    }
}
