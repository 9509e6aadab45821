//! The cross entropy of one row of logits, and its gradient in place of them.

use crate::cpu::simd::Simd;
use std::f32::consts::LOG2_E;

/// Columns whose exponentials are added in f32 before they join a sum in f64.
const SUMMED: usize = 4096;

/// The loss ln sum_c exp(x_c) - x_target, in nats; without a target ln sum_c exp(x_c - max). With `scale`, x becomes
/// scale (softmax(x) - [c = target]).
///
/// # Safety
/// `x` must hold `n` floats, and the target be one of them.
#[inline(always)]
pub unsafe fn row<S: Simd>(x: *mut f32, n: usize, target: Option<usize>, scale: Option<f64>) -> f32 {
    // SAFETY: the caller's promise; each loop stays within n.
    unsafe {
        let max = largest::<S>(x, n);
        let picked = target.map_or(0.0, |t| f64::from(*x.add(t)) - f64::from(max));
        let mut sum = 0.0;
        for start in (0..n).step_by(SUMMED) {
            let columns = SUMMED.min(n - start);
            sum += f64::from(match scale {
                Some(_) => exponentials::<S, true>(x.add(start), columns, max),
                None => exponentials::<S, false>(x.add(start), columns, max),
            });
        }
        if let Some(scale) = scale {
            multiply::<S>(x, n, (scale / sum) as f32);
            if let Some(t) = target {
                *x.add(t) -= scale as f32;
            }
        }
        (sum.ln() - picked) as f32
    }
}

/// # Safety
/// `x` must hold `n` floats.
#[inline(always)]
unsafe fn largest<S: Simd>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let never = S::splat(f32::NEG_INFINITY);
        let mut max = [never; 4];
        let mut j = 0;
        while j + 4 * S::LANES <= n {
            for (v, max) in max.iter_mut().enumerate() {
                *max = S::max(*max, S::load(x.add(j + v * S::LANES)));
            }
            j += 4 * S::LANES;
        }
        while j < n {
            let columns = S::LANES.min(n - j);
            let value = S::select_first(columns as isize, S::load_first(x.add(j), columns), never);
            max[0] = S::max(max[0], value);
            j += S::LANES;
        }
        S::max_lane(S::max(S::max(max[0], max[1]), S::max(max[2], max[3])))
    }
}

/// The sum of exp(x_c - max); with `STORE` each takes the place of x_c.
///
/// # Safety
/// `x` must hold `n` floats.
#[inline(always)]
unsafe fn exponentials<S: Simd, const STORE: bool>(x: *mut f32, n: usize, max: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (max, unit) = (S::splat(max), S::splat(LOG2_E));
        // The difference first: it is exact where it matters, however large the logits are.
        let exp = |x: S::V| S::exp2(S::mul(S::sub(x, max), unit));
        let mut sum = [S::splat(0.0); 4];
        let mut j = 0;
        while j + 4 * S::LANES <= n {
            for (v, sum) in sum.iter_mut().enumerate() {
                let at = x.add(j + v * S::LANES);
                let e = exp(S::load(at));
                *sum = S::add(*sum, e);
                if STORE {
                    S::store(at, e);
                }
            }
            j += 4 * S::LANES;
        }
        while j < n {
            let columns = S::LANES.min(n - j);
            let e = exp(S::load_first(x.add(j), columns));
            sum[0] = S::add(sum[0], S::select_first(columns as isize, e, S::splat(0.0)));
            if STORE {
                S::store_first(x.add(j), e, columns);
            }
            j += S::LANES;
        }
        S::sum(S::add(S::add(sum[0], sum[1]), S::add(sum[2], sum[3])))
    }
}

/// # Safety
/// `x` must hold `n` floats.
#[inline(always)]
unsafe fn multiply<S: Simd>(x: *mut f32, n: usize, factor: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = S::splat(factor);
        let whole = n / S::LANES * S::LANES;
        for j in (0..whole).step_by(S::LANES) {
            S::store(x.add(j), S::mul(S::load(x.add(j)), factor));
        }
        let rest = n - whole;
        S::store_first(x.add(whole), S::mul(S::load_first(x.add(whole), rest), factor), rest);
    }
}
