//! Prints GFLOP/s of the matrix products of training steps beside crate `gemm` and the machine's FMA peak.
//!
//! `cargo run --release -p isoflop-kernels --example gemm_speed [filter]... [--seconds S]`
//! Operands are cold, as in a step that touches other memory between two uses: every pass takes the next of as many
//! copies as fill 80 MB. Each figure is the best of many passes (the machine may be shared); the contenders alternate.

use isoflop_kernels::cpu::gemm::Gemm;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What lies between two uses of the same operands, in bytes.
const BETWEEN: usize = 80 << 20;
const TURNS: u32 = 6;
/// Whatever runs longer than this many seconds is timed by the thread's own clock, which stops while others run.
const SLICE: f64 = 2e-3;

fn main() {
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    let mut budget = Duration::from_millis(800);
    if let Some(at) = filters.iter().position(|f| f == "--seconds") {
        let seconds = filters.get(at + 1).and_then(|s| s.parse().ok()).filter(|s| (0.0..1e6).contains(s));
        budget = Duration::from_secs_f64(seconds.expect("--seconds takes a number"));
        filters.drain(at..at + 2);
    }
    let peak = fma_peak();
    println!("FMA peak of one core: {peak:.1} GFLOP/s");
    println!(
        "{:<16} {:>5} {:>5} {:>5} {:>5} {:>9} {:>5} {:>9} {:>5} {:>9} {:>9}",
        "product", "m", "n", "k", "tasks", "1 thread", "peak", "2 threads", "peak", "us", "crate, 1"
    );
    let mut logs = [0.0; 3];
    let mut count = 0;
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    for (name, g) in products().into_iter().filter(|(name, _)| chosen(name)) {
        let rates = measure(&g, budget);
        let shares = [rates[0] / peak, rates[1] / peak / 2.0, rates[2] / peak];
        println!(
            "{name:<16} {:>5} {:>5} {:>5} {:>5} {:>9.1} {:>4.0}% {:>9.1} {:>4.0}% {:>9.1} {:>9.1}",
            g.m,
            g.n,
            g.k,
            g.phases()[0],
            rates[0],
            100.0 * shares[0],
            rates[1],
            100.0 * shares[1],
            g.flops() as f64 / rates[1] / 1e3,
            rates[2],
        );
        for (log, share) in logs.iter_mut().zip(shares) {
            *log += share.ln();
        }
        count += 1;
    }
    let [one, two, library] = logs.map(|log| 100.0 * (log / count.max(1) as f64).exp());
    println!(
        "geometric mean of the share of peak: {one:.1} %, two threads {two:.1} %, crate gemm {library:.1} %"
    );
}

/// Forward (y), input gradient (dx) and weight gradient (dw) of every projection of a block and of the tied head.
fn products() -> Vec<(String, Gemm)> {
    let mut products = Vec::new();
    // name, tokens, d_model, seq_len, vocabulary (0: no head, and no table of relative positions)
    let models = [
        ("nano-a", 2048, 64, 128, 256),
        ("nano-b", 2048, 128, 128, 256),
        ("nano-c", 2048, 256, 256, 256),
        ("44m", 1024, 512, 512, 32000),
        ("d24", 1024, 24, 0, 0),
        ("d48", 2048, 48, 0, 0),
        ("d96", 2048, 96, 0, 0),
        ("d192", 2048, 192, 0, 0),
        ("d384", 1024, 384, 0, 0),
        ("d768", 1024, 768, 0, 0),
        ("d1024", 1024, 1024, 0, 0),
    ];
    for (model, tokens, d, seq, vocab) in models {
        let mut projections = vec![
            ("qkv", tokens, d, 3 * d),
            ("out", tokens, d, d),
            ("ff1", tokens, d, 4 * d),
            ("ff2", tokens, 4 * d, d),
        ];
        if vocab > 0 {
            projections.extend([("rel", seq, d, d), ("head", tokens, d, vocab)]);
        }
        for (what, t, i, o) in projections {
            let g = |m, n, k, a, b, c| Gemm { batch: 1, m, n, k, a, b, c, accumulate: false };
            products.push((format!("{model} {what}"), g(t, o, i, [0, i, 1], [0, 1, i], [0, o, 1])));
            products.push((format!("{model} {what} dx"), g(t, i, o, [0, o, 1], [0, i, 1], [0, i, 1])));
            products.push((format!("{model} {what} dw"), g(o, i, t, [0, 1, o], [0, i, 1], [0, i, 1])));
        }
    }
    products
}

/// Copies of a product's operands, on large pages as the executor's memory is.
struct Operands {
    memory: Vec<f32>,
    start: usize,
    /// Offsets of b and c, and of the next copy.
    sizes: [usize; 3],
    copies: usize,
}

impl Operands {
    fn of(g: &Gemm) -> Operands {
        const PAGE: usize = (2 << 20) / 4;
        let [a, b, c] = g.extents().map(|count| count.next_multiple_of(16));
        let sizes = [a, a + b, a + b + c];
        let copies = (BETWEEN / (4 * sizes[2])).clamp(1, 4000);
        let mut memory: Vec<f32> = Vec::with_capacity(copies * sizes[2] + 2 * PAGE);
        let start = memory.as_ptr().align_offset(2 << 20);
        large_pages(memory.as_mut_ptr().wrapping_add(start), copies * sizes[2]);
        memory.extend((0..memory.capacity()).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5));
        Operands { memory, start, sizes, copies }
    }

    /// a, b and c of the copy for pass `pass`, as addresses, which threads may share.
    fn copy(&mut self, pass: usize) -> [usize; 3] {
        let copy = self.memory.as_mut_ptr().wrapping_add(self.start + pass % self.copies * self.sizes[2]);
        [0, self.sizes[0], self.sizes[1]].map(|offset| copy.wrapping_add(offset) as usize)
    }
}

#[cfg(target_os = "linux")]
fn large_pages(start: *mut f32, count: usize) {
    unsafe extern "C" {
        fn madvise(address: *mut std::ffi::c_void, bytes: usize, advice: i32) -> i32;
    }
    const MADV_HUGEPAGE: i32 = 14;
    // SAFETY: the range is the caller's own; advice changes no contents, and a refusal does no harm.
    unsafe { madvise(start.cast(), count * 4, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn large_pages(_: *mut f32, _: usize) {}

/// GFLOP/s of our product on one thread and on two, and of crate gemm on one.
fn measure(g: &Gemm, budget: Duration) -> [f64; 3] {
    let mut operands = Operands::of(g);
    let tasks = g.phases()[0];
    let run = |task: usize, [a, b, c]: [usize; 3]| {
        // SAFETY: the operands outlive every call and hold every element the strides reach.
        unsafe { g.run(0, task, a as *const f32, b as *const f32, c as *mut f32) }
    };
    let library = |[a, b, c]: [usize; 3]| {
        let [(ra, ca), (rb, cb), (rc, cc)] = [g.a, g.b, g.c].map(|s| (s[1] as isize, s[2] as isize));
        let (a, b, c) = (a as *const f32, b as *const f32, c as *mut f32);
        let serial = gemm::Parallelism::None;
        // SAFETY: as above.
        unsafe {
            gemm::gemm(
                g.m, g.n, g.k, c, cc, rc, false, a, ca, ra, b, cb, rb, 0.0f32, 1.0, false, false, false,
                serial,
            );
        }
    };
    let mut best = [f64::INFINITY; 3];
    let mut best_tasks = vec![f64::INFINITY; tasks];
    for _ in 0..TURNS {
        let turn = budget / TURNS / 3;
        fastest(turn, |pass| {
            for (i, best) in best_tasks.iter_mut().enumerate() {
                let (start, own_start) = (Instant::now(), thread_seconds());
                run(i, operands.copy(pass));
                let (wall, own) = (start.elapsed().as_secs_f64(), thread_seconds() - own_start);
                *best = best.min(if wall > SLICE { own } else { wall });
            }
        });
        best[1] = best[1].min(fastest_of_two(turn, tasks, |pass| operands.copy(pass), &run));
        best[2] = best[2].min(fastest(turn, |pass| library(operands.copy(pass))));
    }
    best[0] = best_tasks.iter().sum();
    best.map(|seconds| g.flops() as f64 / seconds / 1e9)
}

/// Seconds that the calling thread has run; its clock is too coarse for short tasks.
#[cfg(target_os = "linux")]
fn thread_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the clock exists for every thread, and the time is written to our own place.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn thread_seconds() -> f64 {
    use std::sync::LazyLock;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// Seconds of the fastest call in `turn`, after at least two.
fn fastest(turn: Duration, mut call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut pass = 0;
    while pass < 2 || start.elapsed() < turn {
        let start = Instant::now();
        call(pass);
        best = best.min(start.elapsed().as_secs_f64());
        pass += 1;
    }
    best
}

/// The same for passes whose tasks two threads share, with a barrier after each pass.
fn fastest_of_two(
    turn: Duration,
    tasks: usize,
    mut operands: impl FnMut(usize) -> [usize; 3],
    run: &(dyn Fn(usize, [usize; 3]) + Sync),
) -> f64 {
    // Passes are published by their number; the second thread announces what it has finished.
    let (published, finished, next) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let current: [AtomicUsize; 3] = std::array::from_fn(|_| AtomicUsize::new(0));
    let stop = usize::MAX;
    let take_all = |operands: [usize; 3]| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            run(task, operands);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            loop {
                let number = wait_until(|| Some(published.load(Ordering::Acquire)).filter(|&n| n != seen));
                if number == stop {
                    return;
                }
                seen = number;
                take_all(std::array::from_fn(|i| current[i].load(Ordering::Relaxed)));
                finished.store(number, Ordering::Release);
            }
        });
        let best = fastest(turn, |pass| {
            let operands = operands(pass);
            for (place, address) in current.iter().zip(operands) {
                place.store(address, Ordering::Relaxed);
            }
            next.store(0, Ordering::Relaxed);
            published.store(pass + 1, Ordering::Release);
            take_all(operands);
            wait_until(|| (finished.load(Ordering::Acquire) == pass + 1).then_some(()));
        });
        published.store(stop, Ordering::Release);
        best
    })
}

fn wait_until<T>(ready: impl Fn() -> Option<T>) -> T {
    for turn in 0u32.. {
        if let Some(value) = ready() {
            return value;
        }
        if turn > 2000 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
    unreachable!("the loop above ends only by returning")
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
