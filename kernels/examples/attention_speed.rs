//! Times relative attention, forward and backward, against the multiply-add peak of one core.
//!
//! `cargo run --release -p isoflop-kernels --example attention_speed [-- batch,seq,heads,d_head ...]`

use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::program::ALIGN;
use timing::{Shared, fastest_seconds, peak};

mod timing;

/// Runs of each call, of which the fastest counts.
const REPEAT: usize = 51;

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
        let f = fastest_seconds(threads, REPEAT, &d.forward_phases(), forward);
        let b = fastest_seconds(threads, REPEAT, &d.backward_phases(), backward);
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
