//! The law E + A / N^alpha + B / D^beta at all runs, with its first and second derivatives.
//!
//! log L is modelled as the logarithm of exp(e) + exp(a - alpha x) + exp(b - beta y) with x = ln N and y = ln D taken
//! about their means, so that the five parameters theta = (e, a, b, alpha, beta) are of one scale. The objective is the
//! SUM over runs of Huber_delta(model - log L): a mean would shrink the gradient and end the iteration early.
//! Hoffmann et al. 2022, eq. 3.

use super::lanes::{BLOCK, Block, Sum, exp, ln, load, map, zip};
use super::points::{Derivatives, Measure, Points, Vec5};

/// Lower triangle of a 5 by 5 matrix.
const TRIANGLE: usize = 15;

/// ORDER 0: the value; 1: with gradient and scale; 2: with Hessian and metric.
#[inline(always)]
fn sweep<const LINEAR: bool, const ORDER: usize>(
    points: &Points,
    weights: &[f64],
    theta: &Vec5,
    delta: f64,
) -> Derivatives {
    let [level, a, b, alpha, beta] = [theta[0].exp(), theta[1], theta[2], -theta[3], -theta[4]];
    const ONES: Block = [1.0; BLOCK];
    let (mut value, mut scale) = (Sum::ZERO, Sum::ZERO);
    let mut gradient = [Sum::ZERO; 5];
    let (mut hessian, mut metric) = ([Sum::ZERO; TRIANGLE], [Sum::ZERO; TRIANGLE]);
    let mut curved = [Sum::ZERO; 7];
    for at in (0..weights.len()).step_by(BLOCK) {
        let w = load(weights, at);
        let (x, y) = (load(&points.x, at), load(&points.y, at));
        let by_size = map(&x, |x| exp(alpha.mul_add(x, a)));
        let by_tokens = map(&y, |y| exp(beta.mul_add(y, b)));
        let loss = zip(&by_size, &by_tokens, |p, q| level + (p + q));
        let r = match LINEAR {
            true => zip(&loss, &load(&points.loss, at), |l, m| l - m),
            false => zip(&loss, &load(&points.z, at), |l, z| ln(l) - z),
        };
        let psi = map(&r, |r| {
            let r = if r < -delta { -delta } else { r };
            if r > delta { delta } else { r }
        });
        value.add(&w, &zip(&psi, &r, |p, r| p * p.mul_add(-0.5, r)));
        if ORDER == 0 {
            continue;
        }
        let slope = match LINEAR {
            true => zip(&zip(&w, &psi, |w, p| w * p), &loss, |s, l| s * l),
            false => zip(&w, &psi, |w, p| w * p),
        };
        let inverse = map(&loss, |l| 1.0 / l);
        let p0 = map(&inverse, |i| level * i);
        let p1 = zip(&by_size, &inverse, |p, i| p * i);
        let p2 = zip(&by_tokens, &inverse, |p, i| p * i);
        let (j3, j4) = (zip(&x, &p1, |x, p| -x * p), zip(&y, &p2, |y, p| -y * p));
        let j = [&p0, &p1, &p2, &j3, &j4];
        for k in 0..5 {
            gradient[k].add(&slope, j[k]);
        }
        scale.add(&ONES, &map(&slope, f64::abs));
        if ORDER == 1 {
            continue;
        }
        let square = match LINEAR {
            true => zip(&w, &loss, |w, l| w * l * l),
            false => w,
        };
        let inside = zip(&square, &r, |s, r| if r.abs() <= delta { s } else { 0.0 });
        let bend = if LINEAR { inside } else { zip(&inside, &slope, |i, s| i - s) };
        let above = zip(&square, &r, |s, r| if r.abs() <= delta { s } else { s * (delta / r.abs()) });
        let mut k = 0;
        for row in 0..5 {
            let (b, a) = (zip(&bend, j[row], |b, j| b * j), zip(&above, j[row], |a, j| a * j));
            for col in j.iter().take(row + 1) {
                hessian[k].add(&b, col);
                metric[k].add(&a, col);
                k += 1;
            }
        }
        // Second derivatives of the three exponents' terms: p_k v_k v_k^T with v_k = d u_k / d theta.
        let (xx, yy) = (zip(&x, &j3, |x, j| -x * j), zip(&y, &j4, |y, j| -y * j));
        for (sum, second) in curved.iter_mut().zip([&p0, &p1, &p2, &j3, &j4, &xx, &yy]) {
            sum.add(&slope, second);
        }
    }
    let mut out = Derivatives::zero();
    out.value = value.total();
    if ORDER > 0 {
        out.scale = scale.total();
        (0..5).for_each(|k| out.gradient[k] = gradient[k].total());
    }
    if ORDER > 1 {
        let mut k = 0;
        for row in 0..5 {
            for col in 0..=row {
                out.hessian[(row, col)] = hessian[k].total();
                out.metric[(row, col)] = metric[k].total();
                k += 1;
            }
        }
        const PLACES: [(usize, usize); 7] = [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2), (3, 3), (4, 4)];
        for (k, place) in PLACES.into_iter().enumerate() {
            out.hessian[place] += curved[k].total();
        }
        out.mirror();
    }
    out
}

/// The same loop with wider vectors; it computes the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sweep_avx2<const LINEAR: bool, const ORDER: usize>(
    points: &Points,
    weights: &[f64],
    theta: &Vec5,
    delta: f64,
) -> Derivatives {
    sweep::<LINEAR, ORDER>(points, weights, theta, delta)
}

fn dispatch<const ORDER: usize>(
    points: &Points,
    weights: &[f64],
    theta: &Vec5,
    measure: Measure,
) -> Derivatives {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe {
            match measure.linear {
                true => sweep_avx2::<true, ORDER>(points, weights, theta, measure.delta),
                false => sweep_avx2::<false, ORDER>(points, weights, theta, measure.delta),
            }
        };
    }
    match measure.linear {
        true => sweep::<true, ORDER>(points, weights, theta, measure.delta),
        false => sweep::<false, ORDER>(points, weights, theta, measure.delta),
    }
}

/// Sum over runs of weight times Huber_delta of the residual.
pub(crate) fn value(points: &Points, weights: &[f64], theta: &Vec5, measure: Measure) -> f64 {
    dispatch::<0>(points, weights, theta, measure).value
}

/// The value with its gradient; the matrices stay zero.
pub(crate) fn slope(points: &Points, weights: &[f64], theta: &Vec5, measure: Measure) -> Derivatives {
    dispatch::<1>(points, weights, theta, measure)
}

/// The value with all derivatives.
pub(crate) fn derivatives(points: &Points, weights: &[f64], theta: &Vec5, measure: Measure) -> Derivatives {
    dispatch::<2>(points, weights, theta, measure)
}

/// The residual and the shares of the three terms at one run.
pub(crate) fn residual(points: &Points, theta: &Vec5, i: usize, linear: bool) -> (f64, [f64; 3]) {
    let u = [theta[0], theta[1] - theta[3] * points.x[i], theta[2] - theta[4] * points.y[i]].map(f64::exp);
    let loss = u[0] + u[1] + u[2];
    let r = if linear { loss - points.loss[i] } else { loss.ln() - points.z[i] };
    (r, u.map(|u| u / loss))
}

/// The residual at one run and its slopes.
pub(crate) fn row(points: &Points, theta: &Vec5, i: usize, linear: bool) -> (f64, Vec5) {
    let (r, [p, q, s]) = residual(points, theta, i, linear);
    let slopes = Vec5::new(p, q, s, -points.x[i] * q, -points.y[i] * s);
    (r, if linear { slopes * (r + points.loss[i]) } else { slopes })
}
