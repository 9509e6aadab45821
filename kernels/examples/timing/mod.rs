//! The fastest of many runs of a call, and what the machine could do at most.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A pointer that tasks of one call share.
#[derive(Clone, Copy)]
pub struct Shared(pub *mut f32);
// SAFETY: the tasks of a phase write disjoint memory.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Seconds of a call whose phases have `phases` tasks, `threads` taking tasks from a counter: the fastest of many,
/// since whatever else the machine does only adds.
pub fn fastest_seconds(
    threads: usize,
    repeat: usize,
    phases: &[usize],
    run: impl Fn(usize, usize) + Sync,
) -> f64 {
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
    // A call lasts as long as its slowest thread works on it: one that came late found nothing left to do.
    let times: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut times = vec![work()];
        times.extend(others.into_iter().map(|other| other.join().expect("a timing thread panicked")));
        times
    });
    let slowest = |call: usize| times.iter().map(|of_thread| of_thread[call]).max().unwrap_or_default();
    (0..repeat).map(slowest).min().map_or(f64::NAN, |time| time.as_secs_f64())
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
pub fn peak() -> Option<f64> {
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
