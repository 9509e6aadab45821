//! Sigmoids: derivatives, minima, bounds, and linear resamples beside fitted ones.

use super::*;
use crate::fit::intervals::{resampled, shifts};
use crate::fit::options::FitOptions;

const TRUE: Sigmoid = Sigmoid { floor: 0.25, ceiling: 0.9, k: 9.0, midpoint: 0.8 };

fn losses() -> Vec<f64> {
    (0..30).map(|i| 0.55 + 0.6 * f64::from(i) / 29.0).collect()
}

/// Accuracies of `TRUE` with some scatter of this size.
fn scattered(losses: &[f64], size: f64) -> Vec<f64> {
    let bump = |i: usize| size * (((i * 7) % 11) as f64 / 5.0 - 1.0);
    losses.iter().enumerate().map(|(i, &l)| TRUE.accuracy(l) + bump(i)).collect()
}

#[test]
fn gradient_and_hessian_agree_with_finite_differences() {
    let x = losses();
    let y = scattered(&x, 0.015);
    let weights: Vec<f64> = (0..30).map(|i| f64::from(i % 3)).collect();
    for delta in [0.02, 0.5, f64::INFINITY] {
        let s = Sigmoids::new(&x, &y, [None, None], delta);
        let theta = Vec4::new(0.28, 0.8, 1.3, 0.07);
        let near = s.near(&weights, &theta);
        assert!((near.value - s.value(&weights, &theta)).abs() < 1e-14);
        let h = 1e-6;
        for i in 0..4 {
            let mut up = theta;
            let mut down = theta;
            up[i] += h;
            down[i] -= h;
            let slope = (s.value(&weights, &up) - s.value(&weights, &down)) / (2.0 * h);
            assert!((slope - near.gradient[i]).abs() < 1e-7 * near.scale[i].max(1.0), "{delta} {i}");
            let bend = (s.near(&weights, &up).gradient - s.near(&weights, &down).gradient) / (2.0 * h);
            for j in 0..4 {
                let found = near.hessian[(i, j)];
                assert!((bend[j] - found).abs() < 1e-5 * near.hessian.amax(), "{delta} {i} {j}: {found}");
            }
        }
    }
}

#[test]
fn a_sigmoid_comes_back_from_its_own_accuracies() {
    let x = losses();
    let y = scattered(&x, 0.0);
    for (held, delta) in [
        ([None, None], 0.02),
        ([None, None], f64::INFINITY),
        ([Some(0.25), None], 0.02),
        ([Some(0.25), Some(0.9)], 1e-3),
        ([None, Some(0.9)], 0.02),
    ] {
        let found = Sigmoids::new(&x, &y, held, delta).solve(&[1.0; 30]).unwrap();
        let s = found.sigmoid;
        assert_eq!(found.status, FitStatus::Converged, "{s:?}");
        for ((name, value), (_, wanted)) in s.named().into_iter().zip(TRUE.named()) {
            assert!((value / wanted - 1.0).abs() < 1e-5, "{held:?} {delta} {name}: {value}");
        }
    }
}

#[test]
fn the_minimum_is_no_worse_than_any_of_many_other_starts() {
    let x = losses();
    for size in [0.004, 0.02, 0.08] {
        let y: Vec<f64> = scattered(&x, size).iter().map(|y| y.clamp(0.0, 1.0)).collect();
        for delta in [0.02, f64::INFINITY] {
            let s = Sigmoids::new(&x, &y, [None, None], delta);
            let weights: Vec<f64> = (0..30).map(|i| f64::from((i * 5) % 4)).collect();
            let found = s.solve(&weights).unwrap();
            let least = s.value(&weights, &found.theta);
            for i in 0..1000 {
                let share = |m: usize| ((i * m) % 997) as f64 / 996.0;
                let start = Vec4::new(
                    0.5 * share(1),
                    0.5 + 0.5 * share(31),
                    -2.0 + 7.0 * share(83),
                    -2.0 + 3.0 * share(257),
                );
                let end = s.minimise(&weights, &start, 1e-10, 300);
                assert!(least <= end.value * (1.0 + 1e-9), "{size} {delta}: {least} {}", end.value);
            }
            let near = s.near(&weights, &found.theta);
            let movable = s.movable(&found.theta, &near.gradient);
            assert!((0..4).all(|i| !movable[i] || near.gradient[i].abs() <= 1e-8 * near.scale[i]));
        }
    }
}

#[test]
fn floor_and_ceiling_stay_between_0_and_1_and_in_order() {
    let x = losses();
    // Rising with the loss: the best sigmoid is level. All right: it is level at 1.
    let wrong: Vec<f64> = x.iter().map(|l| 1.0 - TRUE.accuracy(*l)).collect();
    let found = Sigmoids::new(&x, &wrong, [None, None], 0.02).solve(&[1.0; 30]).unwrap();
    assert!(found.sigmoid.floor <= found.sigmoid.ceiling, "{:?}", found.sigmoid);
    assert_eq!(found.status, FitStatus::AtBound);
    let right = Sigmoids::new(&x, &[1.0; 30], [None, None], 0.02).solve(&[1.0; 30]).unwrap();
    assert!((right.sigmoid.accuracy(0.8) - 1.0).abs() < 1e-9, "{:?}", right.sigmoid);
    assert!(right.at_bound.contains(&"ceiling"));
    assert_eq!(Sigmoids::new(&x, &wrong, [None, None], 0.02).again(&[0.0; 30], &found), None);
}

#[test]
fn linear_resamples_spread_as_fitted_ones() {
    let n = 4000;
    let x: Vec<f64> = (0..n).map(|i| 0.55 + 0.6 * f64::from(i) / f64::from(n)).collect();
    // Two incommensurate steps make an even scatter of about 0.02.
    let scatter = |i: i32| 0.07 * ((f64::from(i) * 0.754_877_666).fract() - 0.5);
    let y: Vec<f64> = (0..n).map(|i| TRUE.accuracy(x[i as usize]) + scatter(i)).collect();
    let ones = vec![1.0; n as usize];
    let options = FitOptions { bootstrap: 200, ..FitOptions::default() };
    let strata = [(0..n as usize).collect::<Vec<usize>>()];
    for held in [[None, None], [Some(0.25), None]] {
        let s = Sigmoids::new(&x, &y, held, 0.02);
        let found = s.solve(&ones).unwrap();
        let inverse = s.inverse(&ones, &found).unwrap();
        let slope = |i: usize| -> [f64; 4] { s.slope(1.0, &found, i).into() };
        let summed = (0..n as usize).fold(Vec4::zeros(), |sum, i| sum + Vec4::from(slope(i)));
        assert!((summed - s.near(&ones, &found.theta).gradient).amax() < 1e-9);
        let quick = shifts(&options, &strata, slope).map(|shift| s.moved(&found, &inverse, &shift.into()));
        let slow = resampled(&options, n as usize, &strata, |counts| s.again(counts, &found));
        for i in 0..4 {
            let spread = |all: &[Sigmoid]| {
                let of = |s: &Sigmoid| s.named()[i].1;
                let mean = all.iter().map(of).sum::<f64>() / all.len() as f64;
                (all.iter().map(|s| (of(s) - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt()
            };
            let (p, q) = (spread(&quick.draws), spread(&slow.draws));
            assert!((p - q).abs() <= 0.25 * q, "{held:?} {i}: {p} {q}");
        }
    }
}
