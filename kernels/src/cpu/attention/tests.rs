//! The kernel against its f64 reference on every instruction set, and the reference against finite differences.

use super::RelAttention;
use super::reference::{self, Inputs};
use crate::cpu::simd::Level;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn dims(batch: usize, seq: usize, heads: usize, d_head: usize) -> RelAttention {
    RelAttention { batch, seq, heads, d_head }
}

fn normal(rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
    let mut draw = || {
        let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        // Rounded to f32 so that both precisions start from the same numbers.
        f64::from(((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32)
    };
    (0..n).map(|_| draw()).collect()
}

fn inputs(d: &RelAttention, rng: &mut ChaCha8Rng) -> (Inputs, Vec<f64>) {
    let width = d.heads * d.d_head;
    let x = Inputs {
        qkv: normal(rng, d.batch * d.seq * 3 * width),
        rel: normal(rng, d.seq * width),
        u: normal(rng, width),
        v: normal(rng, width),
    };
    (x, normal(rng, d.batch * d.seq * width))
}

fn single(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// How tasks of a phase are ordered.
#[derive(Clone, Copy)]
enum Order {
    Forward,
    Shuffled(u64),
}

impl Order {
    fn tasks(self, n: usize) -> Vec<usize> {
        let mut tasks: Vec<usize> = (0..n).collect();
        if let Order::Shuffled(seed) = self {
            tasks.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        tasks
    }
}

/// out, lse, dqkv, drel, du, dv of the kernel, from outputs and workspaces full of NaN.
fn run(level: Level, d: &RelAttention, x: &Inputs, dout: &[f64], order: Order) -> [Vec<f32>; 6] {
    let poison = |n: usize| vec![f32::NAN; n];
    let [mut qkv, mut rel, mut u, mut v] = [&x.qkv, &x.rel, &x.u, &x.v].map(|x| single(x));
    let mut dout = single(dout);
    let mut outputs =
        [dout.len(), d.batch * d.heads * d.seq, qkv.len(), rel.len(), u.len(), v.len()].map(poison);
    let [out, lse, dqkv, drel, du, dv] = outputs.each_mut().map(|x| x.as_mut_ptr());
    let [qkv, rel, u, v] = [&mut qkv, &mut rel, &mut u, &mut v].map(|x| x.as_mut_ptr());

    let mut workspace = poison(d.forward_workspace());
    let args = [qkv, rel, u, v, out, lse, workspace.as_mut_ptr()];
    for (phase, tasks) in d.forward_phases().into_iter().enumerate() {
        for task in order.tasks(tasks) {
            // SAFETY: buffers of the documented sizes, one task at a time.
            unsafe { d.forward_on(level, phase, task, args) }
        }
    }
    let mut workspace = poison(d.backward_workspace());
    let args = [qkv, rel, u, v, out, lse, dout.as_mut_ptr(), dqkv, drel, du, dv, workspace.as_mut_ptr()];
    for (phase, tasks) in d.backward_phases().into_iter().enumerate() {
        for task in order.tasks(tasks) {
            // SAFETY: buffers of the documented sizes, one task at a time.
            unsafe { d.backward_on(level, phase, task, args) }
        }
    }
    outputs
}

/// Largest difference, relative to the root mean square of what is expected.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let worst = found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - e).abs());
    // f64::max would drop a NaN.
    worst.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }) / rms.max(0.05)
}

/// All outputs of all levels against the reference, to `tolerance`.
fn check(d: RelAttention, seed: u64, tolerance: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (x, dout) = inputs(&d, &mut rng);
    let y = reference::forward(&d, &x);
    let g = reference::backward(&d, &x, &dout);
    for level in Level::available() {
        let found = run(level, &d, &x, &dout, Order::Forward);
        let expected = [&y.out, &y.lse, &g.dqkv, &g.drel, &g.du, &g.dv];
        for ((name, found), expected) in
            ["out", "lse", "dqkv", "drel", "du", "dv"].iter().zip(&found).zip(expected)
        {
            let error = error(found, expected);
            assert!(error < tolerance, "{level:?} {d:?}: {name} is off by {error:.2e} of its size");
        }
    }
}

#[test]
fn matches_the_reference_on_every_level() {
    let shapes = [
        (1, 1, 1, 8),
        (2, 2, 1, 7),
        (3, 7, 2, 5),
        (1, 8, 1, 16),
        (2, 9, 3, 12),
        (1, 16, 2, 32),
        (2, 17, 2, 13),
        (1, 31, 1, 1),
        (1, 33, 2, 64),
        (2, 48, 1, 20),
        (1, 65, 3, 33),
        (4, 128, 6, 12),
        (1, 128, 1, 16),
        (33, 24, 1, 8),
        (40, 19, 2, 4),
        (1, 100, 2, 128),
        (1, 127, 40, 8),
        (2, 129, 1, 48),
        (3, 200, 2, 24),
        (1, 257, 4, 16),
    ];
    for (seed, (batch, seq, heads, d_head)) in shapes.into_iter().enumerate() {
        check(dims(batch, seq, heads, d_head), seed as u64, 5e-5);
    }
}

#[test]
fn matches_the_reference_on_random_shapes() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for seed in 0..40 {
        let d = dims(
            rng.random_range(1..5),
            rng.random_range(1..90),
            rng.random_range(1..5),
            rng.random_range(1..70),
        );
        check(d, seed, 5e-5);
    }
}

#[test]
fn long_rows_match_the_reference() {
    check(dims(1, 1100, 1, 8), 1, 5e-5);
}

#[test]
fn task_order_does_not_change_a_bit() {
    for d in [dims(2, 100, 3, 12), dims(1, 150, 1, 16), dims(40, 20, 2, 8)] {
        let (x, dout) = inputs(&d, &mut ChaCha8Rng::seed_from_u64(3));
        for level in Level::available() {
            let bits = |order| {
                run(level, &d, &x, &dout, order).map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let expected = bits(Order::Forward);
            for seed in 0..3 {
                assert!(bits(Order::Shuffled(seed)) == expected, "{level:?} {d:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    let d = dims(1, 40, 1, 8);
    let (mut x, dout) = inputs(&d, &mut ChaCha8Rng::seed_from_u64(5));
    for q in &mut x.qkv {
        *q *= 30.0;
    }
    let y = reference::forward(&d, &x);
    let g = reference::backward(&d, &x, &dout);
    for level in Level::available() {
        let [out, lse, dqkv, ..] = run(level, &d, &x, &dout, Order::Forward);
        assert!(error(&out, &y.out) < 1e-3, "{level:?}");
        assert!(error(&lse, &y.lse) < 1e-5, "{level:?}");
        assert!(error(&dqkv, &g.dqkv) < 1e-2, "{level:?}");
    }
}

#[test]
fn reference_backward_matches_finite_differences() {
    let d = dims(2, 5, 2, 3);
    let (x, dout) = inputs(&d, &mut ChaCha8Rng::seed_from_u64(11));
    let loss = |x: &Inputs| -> f64 {
        reference::forward(&d, x).out.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
    };
    let g = reference::backward(&d, &x, &dout);
    type Field = fn(&mut Inputs) -> &mut Vec<f64>;
    let fields: [(&str, Field, &[f64]); 4] = [
        ("qkv", |x| &mut x.qkv, &g.dqkv),
        ("rel", |x| &mut x.rel, &g.drel),
        ("u", |x| &mut x.u, &g.du),
        ("v", |x| &mut x.v, &g.dv),
    ];
    let step = 1e-5;
    for (name, field, gradient) in fields {
        for (k, expected) in gradient.iter().enumerate() {
            let at = |delta: f64| {
                let mut moved = x.clone();
                field(&mut moved)[k] += delta;
                loss(&moved)
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!((slope - expected).abs() < 1e-8, "d{name}[{k}]: {expected} against a slope of {slope}");
        }
    }
}

#[test]
fn small_batches_and_few_heads_still_make_many_tasks() {
    for d in [dims(1, 128, 1, 16), dims(1, 512, 1, 64), dims(8, 128, 1, 12), dims(1, 256, 4, 16)] {
        assert!(d.forward_phases()[1] >= 8, "{d:?}: {:?}", d.forward_phases());
        assert!(d.backward_phases()[1] >= 4, "{d:?}: {:?}", d.backward_phases());
        // Chunks cover all rows once, whatever their number.
        for chunks in 1..20 {
            let ends: Vec<_> = (0..chunks).map(|k| d.chunk_rows(k, chunks)).collect();
            assert!(ends.windows(2).all(|w| w[0].end == w[1].start));
            assert_eq!((ends[0].start, ends[chunks - 1].end), (0, d.seq));
        }
    }
}
