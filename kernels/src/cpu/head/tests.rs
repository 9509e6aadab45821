//! The kernel against the formulas in f64, in both regimes and on every instruction set.

use super::{Args, Head};
use crate::cpu::simd::Level;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Inputs {
    h: Vec<f32>,
    table: Vec<f32>,
    targets: Vec<i32>,
}

/// Random rows of about unit logits times `size`; the first rows aim at both ends of the vocabulary.
fn inputs(head: &Head, size: f32, seed: u64) -> Inputs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |n: usize, scale: f32| -> Vec<f32> {
        (0..n).map(|_| rng.random_range(-1.0f32..1.0) * scale).collect()
    };
    let h = draw(head.rows * head.width, 3.0 * size / (head.width as f32).sqrt());
    let table = draw(head.vocab * head.width, 1.0);
    let ends = [0, head.vocab as i32 - 1];
    let targets = (0..head.rows).map(|i| if i < 4 { ends[i % 2] } else { (i * 7919 % head.vocab) as i32 });
    Inputs { h, table, targets: targets.collect() }
}

/// loss, dh and dtable in f64.
fn reference(head: &Head, x: &Inputs) -> [Vec<f64>; 3] {
    let (width, scale) = (head.width, 1.0 / head.rows as f64);
    let mut out = [vec![0.0; 1], vec![0.0; x.h.len()], vec![0.0; x.table.len()]];
    for i in 0..head.rows {
        let h: Vec<f64> = x.h[i * width..][..width].iter().map(|&v| v.into()).collect();
        let row = |c: usize| x.table[c * width..][..width].iter().map(|&v| f64::from(v));
        let logits: Vec<f64> =
            (0..head.vocab).map(|c| h.iter().zip(row(c)).map(|(a, b)| a * b).sum()).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
        let target = usize::try_from(x.targets[i]).ok().filter(|&t| t < head.vocab);
        out[0][0] += scale * (sum.ln() - target.map_or(0.0, |t| logits[t] - max));
        for c in 0..head.vocab {
            let d = scale * ((logits[c] - max).exp() / sum - f64::from(Some(c) == target));
            for (k, t) in row(c).enumerate() {
                out[1][i * width + k] += d * t;
                out[2][c * width + k] += d * h[k];
            }
        }
    }
    out
}

/// loss, dh and dtable of the kernel, from NaN, with the tasks of each phase in a random order.
fn run(head: &Head, level: Level, x: &Inputs, order: u64) -> [Vec<f32>; 3] {
    let mut rng = ChaCha8Rng::seed_from_u64(order);
    let mut out = [1, x.h.len(), x.table.len()].map(|n| vec![f32::NAN; n]);
    let mut workspace = vec![f32::NAN; head.workspace()];
    let [loss, dh, dtable] = out.each_mut().map(|v| v.as_mut_ptr());
    let args = Args {
        h: x.h.as_ptr(),
        table: x.table.as_ptr(),
        targets: x.targets.as_ptr(),
        loss,
        dh,
        dtable,
        workspace: workspace.as_mut_ptr(),
    };
    for (phase, tasks) in head.phases().into_iter().enumerate() {
        let mut tasks: Vec<usize> = (0..tasks).collect();
        tasks.shuffle(&mut rng);
        for task in tasks {
            // SAFETY: the vectors have the documented sizes; the level is available.
            unsafe { head.run_on(level, phase, task, args) };
        }
    }
    out
}

/// Largest difference, relative to the largest of what is expected.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let size = expected.iter().fold(0.0f64, |a, x| a.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - e).abs());
    // f64::max would drop a NaN.
    worst.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }) / size
}

/// Shapes of both regimes: chunks that are whole, that do not divide the rows, and larger than them.
fn shapes() -> Vec<Head> {
    let mut all = Vec::new();
    for rows in [1, 7, 130] {
        for (width, vocab) in [(1, 3), (24, 31), (40, 257), (5, 700)] {
            for chunk in [1, 48, 128, 1000] {
                all.push(Head { rows, width, vocab, chunk, gradients: true });
            }
        }
    }
    assert!([true, false].iter().all(|local| all.iter().any(|h| h.is_local() == *local)));
    all
}

#[test]
fn matches_the_formulas_on_every_level() {
    for (k, head) in shapes().into_iter().enumerate() {
        let x = inputs(&head, 1.0, k as u64);
        let expected = reference(&head, &x);
        for level in Level::available() {
            let found = run(&head, level, &x, 1);
            for (k, name) in ["loss", "dh", "dtable"].iter().enumerate() {
                let error = error(&found[k], &expected[k]);
                assert!(error < 3e-6, "{name} of {head:?} on {level:?} is off by {error:.1e}");
            }
        }
    }
}

#[test]
fn without_gradients_the_loss_has_the_same_bits() {
    for head in shapes() {
        let x = inputs(&head, 1.0, 5);
        let [loss, ..] = run(&head, Level::detected(), &x, 1);
        let alone = Head { gradients: false, ..head };
        let [only, dh, dtable] = run(&alone, Level::detected(), &x, 2);
        assert_eq!(only, loss, "{head:?}");
        assert!(dh.iter().chain(&dtable).all(|x| x.is_nan()), "{head:?} wrote gradients unasked");
    }
}

#[test]
fn the_order_of_tasks_changes_no_bit() {
    for head in shapes() {
        let x = inputs(&head, 1.0, 9);
        let bits = |order| {
            run(&head, Level::detected(), &x, order)
                .map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        assert_eq!(bits(1), bits(2), "{head:?}");
    }
}

#[test]
fn logits_of_ten_thousand_do_not_overflow() {
    for head in shapes() {
        let x = inputs(&head, 1e4, 3);
        let expected = reference(&head, &x);
        for level in Level::available() {
            let found = run(&head, level, &x, 1);
            let error = error(&found[0], &expected[0]);
            assert!(error < 1e-5, "the loss of {head:?} is off by {error:.1e}: {found:?}");
            assert!(found.iter().flatten().all(|x| x.is_finite()), "{head:?} on {level:?}");
        }
    }
}

/// What the operations say that the call replaces: no logit is picked, and none gets the gradient of one.
#[test]
fn a_target_outside_the_vocabulary_names_no_logit() {
    for head in shapes() {
        let mut x = inputs(&head, 1.0, 4);
        x.targets[0] = -1;
        x.targets[head.rows / 2] = head.vocab as i32;
        let expected = reference(&head, &x);
        let found = run(&head, Level::detected(), &x, 1);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(error(found, expected) < 3e-6, "{head:?}");
        }
    }
}

#[test]
fn a_logit_that_is_no_number_gives_no_loss() {
    let head = Head { rows: 7, width: 2, vocab: 31, chunk: 48, gradients: true };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = inputs(&head, 1.0, 6);
        x.h[4] = bad;
        for level in Level::available() {
            assert!(run(&head, level, &x, 1)[0][0].is_nan(), "{level:?}");
        }
    }
}
