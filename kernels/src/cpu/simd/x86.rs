//! AVX2 with FMA, and AVX-512.

use super::{EXP2, Simd, Work};
use std::arch::x86_64::*;

/// 8 lanes, 16 registers.
#[derive(Clone, Copy)]
pub struct Avx2;

/// 16 lanes, 32 registers; only the foundation subset.
#[derive(Clone, Copy)]
pub struct Avx512;

/// # Safety
/// Needs AVX2 and FMA; the rest is what `work` asks.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn with_avx2<W: Work>(work: W) -> W::Output {
    // SAFETY: the caller's promise; the features are on in this function.
    unsafe { work.run::<Avx2>() }
}

/// # Safety
/// Needs AVX-512F; the rest is what `work` asks.
#[target_feature(enable = "avx512f")]
pub unsafe fn with_avx512<W: Work>(work: W) -> W::Output {
    // SAFETY: the caller's promise; the feature is on in this function.
    unsafe { work.run::<Avx512>() }
}

/// Lanes below `n` as an AVX2 mask.
///
/// # Safety
/// Needs AVX2.
#[inline(always)]
unsafe fn first8(n: isize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n.clamp(0, 8) as i32), lanes)
    }
}

/// Lanes below `n` as an AVX-512 mask.
#[inline(always)]
fn first16(n: isize) -> __mmask16 {
    ((1_u32 << n.clamp(0, 16)) - 1) as __mmask16
}

// SAFETY of every block in the two implementations: the trait's contract, that the instruction set is present and
// pointers are valid for the lanes named.

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, first8(n as isize)) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: __m256, n: usize) {
        unsafe { _mm256_maskstore_ps(to, first8(n as isize), x) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn select_first(n: isize, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first8(n))) }
    }

    #[inline(always)]
    unsafe fn exp2(x: __m256) -> __m256 {
        unsafe {
            // The second operand of max is returned for NaN, so NaN stays NaN.
            let x = _mm256_max_ps(_mm256_set1_ps(-126.0), x);
            let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let f = _mm256_sub_ps(x, n);
            let mut p = _mm256_set1_ps(EXP2[6]);
            for c in EXP2[..6].iter().rev() {
                p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(*c));
            }
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn sum(x: __m256) -> f32 {
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }

    #[inline(always)]
    unsafe fn max_lane(x: __m256) -> f32 {
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first16(n as isize), from) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first16(n as isize), x) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn select_first(n: isize, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(first16(n), b, a) }
    }

    #[inline(always)]
    unsafe fn exp2(x: __m512) -> __m512 {
        unsafe {
            let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let f = _mm512_sub_ps(x, n);
            let mut p = _mm512_set1_ps(EXP2[6]);
            for c in EXP2[..6].iter().rev() {
                p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(*c));
            }
            _mm512_scalef_ps(p, n)
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    unsafe fn max_lane(x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        rows: usize,
        cols: usize,
        scale: f32,
        to: *mut f32,
        to_stride: usize,
        len: usize,
    ) {
        unsafe {
            let scale = _mm512_set1_ps(scale);
            let mut a = [_mm512_setzero_ps(); 16];
            for (r, x) in a.iter_mut().enumerate() {
                if r < rows {
                    *x = _mm512_mul_ps(Self::load_first(from.add(r * from_stride), cols), scale);
                }
            }
            let t = transpose16(a);
            for (c, x) in t.iter().enumerate() {
                if c < cols {
                    Self::store_first(to.add(c * to_stride), *x, len);
                }
            }
        }
    }
}

/// The transpose of a 16 x 16 block: pairs of lanes, of pairs, of quarters, of halves.
///
/// # Safety
/// Needs AVX-512F.
#[inline(always)]
unsafe fn transpose16(a: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut b = a;
        for i in 0..8 {
            b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
        }
        // c[4i + k], quarter q: column 4q + k of rows 4i to 4i + 3.
        let mut c = b;
        for i in 0..4 {
            for h in 0..2 {
                let low = _mm512_castps_pd(b[4 * i + h]);
                let high = _mm512_castps_pd(b[4 * i + 2 + h]);
                c[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                c[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
            }
        }
        let mut t = c;
        for k in 0..4 {
            // Quarters 0 and 2, or 1 and 3, of rows 0 to 7 and of rows 8 to 15.
            let even_low = _mm512_shuffle_f32x4::<0b10_00_10_00>(c[k], c[4 + k]);
            let odd_low = _mm512_shuffle_f32x4::<0b11_01_11_01>(c[k], c[4 + k]);
            let even_high = _mm512_shuffle_f32x4::<0b10_00_10_00>(c[8 + k], c[12 + k]);
            let odd_high = _mm512_shuffle_f32x4::<0b11_01_11_01>(c[8 + k], c[12 + k]);
            t[k] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even_low, even_high);
            t[8 + k] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even_low, even_high);
            t[4 + k] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_low, odd_high);
            t[12 + k] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_low, odd_high);
        }
        t
    }
}
