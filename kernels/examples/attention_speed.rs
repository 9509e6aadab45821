//! Times relative attention, forward and backward, against the multiply-add peak of one core.
//!
//! `cargo run --release -p isoflop-kernels --example attention_speed [-- batch,seq,heads,d_head ...]`

use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::program::ALIGN;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A pointer that tasks of one call share.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: the tasks of a phase write disjoint memory.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Seconds of a call whose phases have `phases` tasks, `threads` taking tasks from a counter: the fastest of many,
/// since whatever else the machine does only adds.
fn fastest_seconds(threads: usize, phases: &[usize], run: impl Fn(usize, usize) + Sync) -> f64 {
    let repeat = 51;
    let counters: Vec<AtomicUsize> = (0..repeat * phases.len()).map(|_| AtomicUsize::new(0)).collect();
    let barrier = Barrier::new(threads);
    let work = || {
        let mut times = Vec::new();
        for call in 0..repeat {
            barrier.wait();
            let start = Instant::now();
            for (phase, &tasks) in phases.iter().enumerate() {
                let next = &counters[call * phases.len() + phase];
                loop {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task >= tasks {
                        break;
                    }
                    run(phase, task);
                }
                if threads > 1 {
                    barrier.wait();
                }
            }
            times.push(start.elapsed());
        }
        times
    };
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let times = work();
        for other in others {
            other.join().expect("a timing thread panicked");
        }
        times
    });
    times.iter().min().map_or(f64::NAN, Duration::as_secs_f64)
}

/// Multiply-adds in registers: independent chains enough to hide latency.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add(steps: usize) -> f32 {
    use std::arch::x86_64::*;
    let (a, b) = (_mm256_set1_ps(std::hint::black_box(0.999)), _mm256_set1_ps(std::hint::black_box(1e-3)));
    let mut x = [a; 12];
    for _ in 0..steps {
        for x in &mut x {
            *x = _mm256_fmadd_ps(*x, a, b);
        }
    }
    x.iter().map(|&x| _mm256_cvtss_f32(x)).sum()
}

/// GFLOP/s of one core, the best of a few tries; none where this example has no loop for the machine.
fn peak() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let steps = 1_000_000;
        let seconds = || {
            let start = Instant::now();
            // SAFETY: the features were detected.
            std::hint::black_box(unsafe { multiply_add(steps) });
            start.elapsed().as_secs_f64()
        };
        let best = (0..20).map(|_| seconds()).fold(f64::INFINITY, f64::min);
        return Some(steps as f64 * 12.0 * 8.0 * 2.0 / best / 1e9);
    }
    None
}

fn measure(d: RelAttention) {
    let width = d.heads * d.d_head;
    let tokens = d.batch * d.seq;
    let mut state = 1_u64;
    let mut random = |n: usize| -> Vec<f32> {
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| draw()).collect()
    };
    let workspace = d.forward_workspace().max(d.backward_workspace());
    let sizes = [tokens * 3 * width, d.seq * width, width, width, tokens * width, d.batch * d.heads * d.seq];
    let outputs = [tokens * width, tokens * 3 * width, d.seq * width, width, width, workspace];
    // Buffers start on cache lines, as in a program: ALIGN bytes more than needed, the first unaligned ones skipped.
    let spare = ALIGN as usize / size_of::<f32>();
    let mut buffers: Vec<Vec<f32>> = sizes.iter().chain(&outputs).map(|&n| random(n + spare)).collect();
    let aligned = |b: &mut Vec<f32>| {
        let skipped = b.as_ptr().align_offset(ALIGN as usize);
        Shared(b[skipped..].as_mut_ptr())
    };
    let p: Vec<Shared> = buffers.iter_mut().map(aligned).collect();
    let p = &p;
    let forward = |phase, task| {
        let args = [0, 1, 2, 3, 4, 5, 11].map(|k: usize| p[k].0);
        // SAFETY: buffers have the documented sizes; the barrier separates phases.
        unsafe { d.forward(phase, task, args) }
    };
    let backward = |phase, task| {
        let args = std::array::from_fn(|k| p[k].0);
        // SAFETY: buffers have the documented sizes; the barrier separates phases.
        unsafe { d.backward(phase, task, args) }
    };
    print!("{:>3} x {:>4} x {:>2} x {:>3}", d.batch, d.seq, d.heads, d.d_head);
    for threads in [1, 2] {
        let f = fastest_seconds(threads, &d.forward_phases(), forward);
        let b = fastest_seconds(threads, &d.backward_phases(), backward);
        let rate = |flops: u64, seconds: f64| flops as f64 / seconds / 1e9;
        print!(" | {:>7.3} {:>6.1}", f * 1e3, rate(d.forward_flops(), f));
        print!(" | {:>7.3} {:>6.1}", b * 1e3, rate(d.backward_flops(), b));
    }
    println!();
}

fn main() {
    let mut shapes: Vec<RelAttention> = Vec::new();
    for argument in std::env::args().skip(1) {
        let numbers: Vec<usize> = argument.split(',').filter_map(|n| n.parse().ok()).collect();
        let &[batch, seq, heads, d_head] = numbers.as_slice() else {
            eprintln!("{argument:?}: expected batch,seq,heads,d_head, for example 16,128,4,16");
            std::process::exit(2);
        };
        shapes.push(RelAttention { batch, seq, heads, d_head });
    }
    if shapes.is_empty() {
        let target = [
            (16, 128, 4, 16),
            (16, 128, 4, 32),
            (8, 256, 8, 32),
            (2, 512, 16, 32),
            (8, 128, 1, 12),
            (16, 128, 6, 12),
            (1, 2048, 4, 64),
        ];
        shapes = target.map(|(batch, seq, heads, d_head)| RelAttention { batch, seq, heads, d_head }).into();
    }
    match peak() {
        Some(peak) => println!("multiply-add peak of one core: {peak:.1} GFLOP/s"),
        None => println!("multiply-add peak of one core: not measured on this machine"),
    }
    println!(
        "batch x seq x heads x d_head | forward ms, GFLOP/s | backward ms, GFLOP/s (1 thread) | (2 threads)"
    );
    for shape in shapes {
        measure(shape);
    }
}
