//! Vectors as plain arrays of four floats, which the compiler maps to SSE2 or NEON registers.

use super::{EXP2, Simd};

/// The level every machine has.
#[derive(Clone, Copy)]
pub struct Portable;

const LANES: usize = 4;
type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|l| f(a[l], b[l]))
}

/// a * b + c: fused on machines whose baseline has the instruction; elsewhere `f32::mul_add` is a library call.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = LANES;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller's promise; an array of floats may be read unaligned.
        unsafe { from.cast::<V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<V>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> V {
        // SAFETY: only the first n elements are read.
        std::array::from_fn(|l| if l < n { unsafe { *from.add(l) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: V, n: usize) {
        for (l, &value) in x.iter().enumerate().take(n) {
            // SAFETY: only the first n elements are written.
            unsafe { *to.add(l) = value }
        }
    }

    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul_add(a: V, b: V, c: V) -> V {
        std::array::from_fn(|l| mul_add(a[l], b[l], c[l]))
    }

    #[inline(always)]
    unsafe fn select_first(n: isize, a: V, b: V) -> V {
        std::array::from_fn(|l| if (l as isize) < n { a[l] } else { b[l] })
    }

    #[inline(always)]
    unsafe fn exp2(x: V) -> V {
        x.map(|x| {
            // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
            const ROUND: f32 = 12_582_912.0;
            let x = if x < -126.0 { -126.0 } else { x };
            let rounded = x + ROUND;
            let f = x - (rounded - ROUND);
            let mut p = EXP2[6];
            for c in EXP2[..6].iter().rev() {
                p = mul_add(p, f, *c);
            }
            f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
        })
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn sum(x: V) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(always)]
    unsafe fn max_lane(x: V) -> f32 {
        x[0].max(x[2]).max(x[1].max(x[3]))
    }
}
