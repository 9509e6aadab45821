//! Prints GFLOP/s of matrix products on the shapes of our models beside crate `gemm` and the machine's FMA peak.
//!
//! `cargo run --release -p isoflop-kernels --example gemm_speed [filter]`
//! Each figure is the best of several rounds (the machine may be shared); the contenders alternate within a round.

use isoflop_kernels::cpu::gemm::Gemm;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 25;
/// A product is measured no longer than this, but at least once.
const LONGEST: Duration = Duration::from_secs(2);
const ROUND: Duration = Duration::from_micros(1500);

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let peak = fma_peak();
    println!("FMA peak of one core: {peak:.1} GFLOP/s");
    println!(
        "{:<22} {:>6} {:>6} {:>6} {:>6} {:>9} {:>6} {:>9} {:>9} {:>9}",
        "product", "m", "n", "k", "tasks", "1 thread", "peak", "crate", "2 threads", "us"
    );
    let mut logs = [0.0; 2];
    let mut count = 0;
    for (name, g) in shapes().into_iter().filter(|(name, _)| name.contains(&filter)) {
        let (own, library, two) = measure(&g);
        println!(
            "{name:<22} {:>6} {:>6} {:>6} {:>6} {own:>9.1} {:>5.0}% {library:>9.1} {two:>9.1} {:>9.1}",
            g.m,
            g.n,
            g.k,
            g.phases()[0],
            100.0 * own / peak,
            g.flops() as f64 / own / 1e3
        );
        logs[0] += (own / peak).ln();
        logs[1] += (library / peak).ln();
        count += 1;
    }
    let mean = |log: f64| 100.0 * (log / count.max(1) as f64).exp();
    println!(
        "geometric mean of the share of peak: {:.0} %, crate gemm {:.0} %",
        mean(logs[0]),
        mean(logs[1])
    );
}

/// Forward, input gradient and weight gradient of each projection, and the logits.
fn shapes() -> Vec<(String, Gemm)> {
    let mut shapes = Vec::new();
    for (tokens, d) in [(1024, 16), (1024, 24), (1024, 32), (2048, 64), (2048, 128), (2048, 256), (1024, 512)]
    {
        let mut outs = vec![("d", d), ("3d", 3 * d), ("4d", 4 * d), ("256", 256)];
        if d == 512 {
            outs.push(("32000", 32000));
        }
        for (what, out) in outs {
            let (t, i, o) = (tokens, d, out);
            let g = |m, n, k, a, b, c| Gemm { batch: 1, m, n, k, a, b, c, accumulate: false };
            shapes.push((format!("d{d} y->{what}"), g(t, o, i, [0, i, 1], [0, 1, i], [0, o, 1])));
            shapes.push((format!("d{d} dx<-{what}"), g(t, i, o, [0, o, 1], [0, i, 1], [0, i, 1])));
            shapes.push((format!("d{d} dw->{what}"), g(o, i, t, [0, 1, o], [0, i, 1], [0, i, 1])));
        }
    }
    shapes
}

/// GFLOP/s of our kernel on one thread, of crate gemm on one thread, of ours on two.
fn measure(g: &Gemm) -> (f64, f64, f64) {
    let filled = |count: usize| (0..count).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect::<Vec<f32>>();
    let (a, b, mut c) = (filled(g.m * g.k), filled(g.k * g.n), filled(g.m * g.n));
    let tasks = g.phases()[0];
    let (a, b, c) = (a.as_ptr() as usize, b.as_ptr() as usize, c.as_mut_ptr() as usize);
    let task = move |i| {
        // SAFETY: the three vectors outlive every call and hold every element the strides reach.
        unsafe { g.run(0, i, a as *const f32, b as *const f32, c as *mut f32) }
    };
    let own = || (0..tasks).for_each(task);
    let library = || {
        let s = |x: [usize; 3]| (x[2] as isize, x[1] as isize);
        let ((ca, ra), (cb, rb), (cc, rc)) = (s(g.a), s(g.b), s(g.c));
        // SAFETY: as above.
        unsafe {
            gemm::gemm(
                g.m,
                g.n,
                g.k,
                c as *mut f32,
                cc,
                rc,
                false,
                a as *const f32,
                ca,
                ra,
                b as *const f32,
                cb,
                rb,
                0.0f32,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    };
    let mut best = [f64::INFINITY; 3];
    let start = Instant::now();
    for round in 0..ROUNDS {
        if round > 0 && start.elapsed() > LONGEST {
            break;
        }
        best[0] = best[0].min(seconds(&own));
        best[1] = best[1].min(seconds(&library));
        best[2] = best[2].min(seconds_of_two(tasks, &task));
    }
    let rate = |seconds: f64| g.flops() as f64 / seconds / 1e9;
    (rate(best[0]), rate(best[1]), rate(best[2]))
}

/// Mean seconds of a call over one round.
fn seconds(call: &dyn Fn()) -> f64 {
    call();
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < ROUND || calls < 1 {
        call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() / calls as f64
}

/// Mean seconds of all tasks shared by two threads, with a barrier after each pass.
fn seconds_of_two(tasks: usize, task: &(dyn Fn(usize) + Sync)) -> f64 {
    let start = Instant::now();
    task(0);
    let passes =
        (ROUND.as_secs_f64() / (start.elapsed().as_secs_f64() * tasks as f64)).clamp(2.0, 5000.0) as usize;
    let next: Vec<AtomicUsize> = (0..passes).map(|_| AtomicUsize::new(0)).collect();
    let arrived = AtomicUsize::new(0);
    let worker = || {
        let barrier = |number: usize| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * number {
                std::thread::yield_now();
            }
        };
        barrier(1);
        let start = Instant::now();
        for (pass, next) in next.iter().enumerate() {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
            barrier(pass + 2);
        }
        start.elapsed().as_secs_f64() / passes as f64
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(worker);
        let mine = worker();
        other.join().map_or(mine, |other| mine.max(other))
    })
}

#[cfg(target_arch = "x86_64")]
fn fma_peak() -> f64 {
    use std::arch::x86_64::*;
    #[target_feature(enable = "avx512f")]
    fn wide(steps: usize) -> f64 {
        let mut sums = [_mm512_set1_ps(black_box(0.5)); 12];
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(1e-3)));
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        (steps * 12 * 32) as f64
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow(steps: usize) -> f64 {
        let mut sums = [_mm256_set1_ps(black_box(0.5)); 12];
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        (steps * 12 * 16) as f64
    }
    let steps = 200_000;
    (0..20)
        .map(|_| {
            let start = Instant::now();
            // SAFETY: each is called only where the CPU has its features.
            let flops = if is_x86_feature_detected!("avx512f") {
                unsafe { wide(steps) }
            } else if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
                unsafe { narrow(steps) }
            } else {
                return f64::NAN;
            };
            flops / start.elapsed().as_secs_f64() / 1e9
        })
        .fold(f64::NAN, f64::max)
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_peak() -> f64 {
    f64::NAN
}
