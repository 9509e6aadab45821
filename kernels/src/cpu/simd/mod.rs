//! The vector operations our kernels need, and the choice of instruction set at run time.
//!
//! A kernel's task is a [`Work`], generic over [`Simd`], and inlined into one function per instruction set that carries
//! the matching `target_feature`, so every operation below becomes an instruction there.

mod portable;
#[cfg(target_arch = "x86_64")]
pub mod x86;

use portable::Portable;

/// Widest vector of any instruction set, in floats; padded sizes are multiples of it so that they depend on shapes only.
pub const MAX_LANES: usize = 16;

/// Vectors of `LANES` floats.
///
/// # Safety
/// All methods are unsafe for one reason: the machine must have the instruction set. Those that take pointers need
/// them valid for the lanes they name (no alignment is asked for).
pub trait Simd: Copy + 'static {
    type V: Copy;
    /// A power of two, at most [`MAX_LANES`].
    const LANES: usize;
    /// Rows of a register tile of three vectors: 8 with 32 registers, 4 with 16.
    const ROWS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    /// Reads only the first `n` (0 to `LANES`) elements; the other lanes are zero.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V;
    /// Writes only the first `n` (0 to `LANES`) elements.
    unsafe fn store_first(to: *mut f32, x: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, fused where the machine can.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Lanes below `n` (any sign) from `a`, the others from `b`.
    unsafe fn select_first(n: isize, a: Self::V, b: Self::V) -> Self::V;
    /// 2^x for x <= 127, relative error below 1e-7 where the result is a normal number.
    unsafe fn exp2(x: Self::V) -> Self::V;
    /// Asks for the cache line of `at` in the second level, where the instruction set has a way to; never faults. Asked
    /// for in the first level, lines from memory would hold up the loads that are due before them.
    unsafe fn prefetch(at: *const f32);
    unsafe fn sum(x: Self::V) -> f32;
    unsafe fn max_lane(x: Self::V) -> f32;

    /// Transposes a block of `rows` (up to `LANES`) by `cols` (up to `LANES`), times `scale`:
    /// `to[c * to_stride + r] = from[r * from_stride + c] * scale`, zero for `rows <= r < len`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
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
        // SAFETY: the caller's promise.
        unsafe {
            for c in 0..cols {
                for r in 0..len {
                    let x = if r < rows { *from.add(r * from_stride + c) * scale } else { 0.0 };
                    *to.add(c * to_stride + r) = x;
                }
            }
        }
    }
}

/// Coefficients of f^0 to f^6 in 2^f on [-1/2, 1/2], minimax in relative error (1.9e-9; 7.6e-8 in f32).
pub const EXP2: [f32; 7] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_46,
    0.055_503_286,
    0.009_618_489,
    0.001_339_993_1,
    0.000_153_458_13,
];

/// Instruction sets with a version of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels this machine has, best last. The standard library caches what it detects.
    pub fn available() -> impl DoubleEndedIterator<Item = Level> {
        let levels = [
            Some(Level::Portable),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            is_x86_feature_detected!("avx512f").then_some(Level::Avx512),
        ];
        levels.into_iter().flatten()
    }

    /// The best level of this machine.
    pub fn detected() -> Level {
        Level::available().next_back().unwrap_or(Level::Portable)
    }

    /// Runs `work` with the instructions of this level.
    ///
    /// # Safety
    /// The level must be [`available`](Level::available); the rest is what `work` asks.
    pub unsafe fn run<W: Work>(self, work: W) -> W::Output {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Level::Portable => work.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::with_avx2(work),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::with_avx512(work),
            }
        }
    }
}

/// Something a kernel does, written once for all instruction sets; see [`Level::run`].
pub trait Work {
    type Output;

    /// Implementations are `#[inline(always)]`, as is everything generic they call.
    ///
    /// # Safety
    /// The machine must have the instruction set; the implementation says what else.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct WorstExp2;

    impl Work for WorstExp2 {
        type Output = f64;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> f64 {
            let mut worst = 0.0_f64;
            for k in 0..200_000 {
                let x = -126.0 + 0.00063 * k as f32;
                let mut y = [0.0; MAX_LANES];
                // SAFETY: the caller's promise; `y` holds the widest vector.
                unsafe { S::store(y.as_mut_ptr(), S::exp2(S::splat(x))) };
                worst = worst.max((f64::from(y[0]) / f64::from(x).exp2() - 1.0).abs());
            }
            worst
        }
    }

    #[test]
    fn exp2_is_accurate_to_two_ulp_on_every_level() {
        for level in Level::available() {
            // SAFETY: the level is available, and the work asks nothing else.
            let worst = unsafe { level.run(WorstExp2) };
            assert!(worst < 2e-7, "{level:?}: {worst:.2e}");
        }
    }
}
