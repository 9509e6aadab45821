//! Blocks of numbers: exp, ln and sums of products without branches, which the compiler turns into vector instructions.
//! Products are fused where it is written so and nowhere else, and sums have one order, so that every processor computes
//! the same bits.

/// Numbers in a block.
pub(crate) const BLOCK: usize = 48;

/// One number for each of up to 48 runs.
pub(crate) type Block = [f64; BLOCK];

/// The numbers of a slice from `at` on, zeros where it ends.
#[inline(always)]
pub(crate) fn load(from: &[f64], at: usize) -> Block {
    let rest = &from[at..];
    match rest.first_chunk() {
        Some(all) => *all,
        None => {
            let mut out = [0.0; BLOCK];
            out[..rest.len()].copy_from_slice(rest);
            out
        }
    }
}

/// Applies a function of one block, and of two, number by number.
#[inline(always)]
pub(crate) fn map(a: &Block, f: impl Fn(f64) -> f64) -> Block {
    let mut out = [0.0; BLOCK];
    for i in 0..BLOCK {
        out[i] = f(a[i]);
    }
    out
}

#[inline(always)]
pub(crate) fn zip(a: &Block, b: &Block, f: impl Fn(f64, f64) -> f64) -> Block {
    let mut out = [0.0; BLOCK];
    for i in 0..BLOCK {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// Sums of products in eight lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum([f64; 8]);

impl Sum {
    pub const ZERO: Sum = Sum([0.0; 8]);

    /// Adds a . b.
    #[inline(always)]
    pub fn add(&mut self, a: &Block, b: &Block) {
        let mut lanes = self.0;
        for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
            for k in 0..8 {
                lanes[k] = a[k].mul_add(b[k], lanes[k]);
            }
        }
        self.0 = lanes;
    }

    /// The sum, always in the same order.
    #[inline(always)]
    pub fn total(self) -> f64 {
        let v = self.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

/// Adding and taking it away rounds to a whole number, which stands in the last bits between the two.
const ROUND: f64 = 6_755_399_441_055_744.0;
const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// e to the power of x, for x within 700 of zero (others are moved there), to about 1 unit in the last place.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    let x = if x > 700.0 { 700.0 } else { x };
    let x = if x < -700.0 { -700.0 } else { x };
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // Taylor's series; |r| is at most ln 2 / 2, where the first term left out is 4e-18.
    let r2 = r * r;
    let r4 = r2 * r2;
    let p0 = r.mul_add(1.0 / 6.0, 1.0 / 2.0);
    let p1 = r.mul_add(1.0 / 120.0, 1.0 / 24.0);
    let p2 = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let p3 = r.mul_add(1.0 / 362_880.0, 1.0 / 40_320.0);
    let p4 = r.mul_add(1.0 / 39_916_800.0, 1.0 / 3_628_800.0);
    let p5 = r.mul_add(1.0 / 6_227_020_800.0, 1.0 / 479_001_600.0);
    let high = r4.mul_add(r2.mul_add(p5, p4), r2.mul_add(p3, p2));
    let series = r4.mul_add(high, r2.mul_add(p1, p0));
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    (1.0 + r2.mul_add(series, r)) * scale
}

/// The natural logarithm, for normal numbers above zero, to about 1 unit in the last place.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    // x = 2^k m with m between sqrt(1/2) and sqrt(2).
    const HALF_ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let bits = x.to_bits();
    let biased = (bits.wrapping_sub(HALF_ROOT).wrapping_add(1023 << 52)) >> 52;
    let k = f64::from_bits(biased | TWO_52.to_bits()) - (TWO_52 + 1023.0);
    let m = f64::from_bits(bits.wrapping_sub(biased.wrapping_sub(1023) << 52));
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let z2 = z * z;
    let z4 = z2 * z2;
    // ln m = 2 artanh s; |s| is below 0.172, where the first term left out is 2e-17 of the sum.
    let p0 = z.mul_add(2.0 / 5.0, 2.0 / 3.0);
    let p1 = z.mul_add(2.0 / 9.0, 2.0 / 7.0);
    let p2 = z.mul_add(2.0 / 13.0, 2.0 / 11.0);
    let p3 = z.mul_add(2.0 / 17.0, 2.0 / 15.0);
    let p4 = z.mul_add(2.0 / 21.0, 2.0 / 19.0);
    let series = z4.mul_add(z4.mul_add(p4, z2.mul_add(p3, p2)), z2.mul_add(p1, p0));
    // ln m = f - (f^2/2 - s (f^2/2 + z series)): the leading term without rounding.
    let half = 0.5 * f * f;
    let small = s.mul_add(z.mul_add(series, half), k * LN2_LOW);
    k.mul_add(LN2_HIGH, f - (half - small))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_are_as_exact_as_the_systems() {
        let mut worst = [0.0f64; 2];
        for i in -70_000..70_000 {
            let x = f64::from(i) * 9.99e-3 + 1e-7;
            let y = exp(x);
            worst[0] = worst[0].max((y / x.exp() - 1.0).abs());
            worst[1] = worst[1].max((ln(y) - y.ln()).abs() / y.ln().abs().max(1e-3));
        }
        assert!(worst[0] < 1e-15 && worst[1] < 1e-15, "{worst:?}");
        // Near 1 the relative error stays small too.
        for i in 1..1000 {
            let x = 1.0 + f64::from(i - 500) * 1e-9;
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs());
        }
        assert_eq!(ln(1.0), 0.0);
        assert!(exp(1e9).is_finite() && exp(-1e9) > 0.0);
    }

    #[test]
    fn short_slices_end_in_zeros_and_sums_are_sums() {
        let block = load(&[9.0, 1.0, 2.0], 1);
        assert_eq!((block[0], block[1], block[2], block[47]), (1.0, 2.0, 0.0, 0.0));
        let mut sum = Sum::ZERO;
        sum.add(&load(&[0.5; 60], 0), &load(&[2.0; 60], 0));
        assert_eq!(sum.total(), 48.0);
    }
}
