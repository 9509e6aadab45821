//! Criterion benchmarks of the library kernels on one thread, at shapes of training steps; throughput is in
//! floating-point operations, or bytes where a kernel only moves them.
//!
//! `cargo bench -p isoflop-kernels [-- FILTER]`; the examples `gemm_speed`, `attention_speed` and `head_speed` set the
//! same kernels beside the machine's peak.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::cpu::embedding::{Gather, ScatterAdd};
use isoflop_kernels::cpu::gemm::Gemm;
use isoflop_kernels::cpu::head::{Args, Head};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values in -1..1, from the same seed in every run; the allocator aligns buffers of this size well enough.
fn random(n: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn indices(n: usize, below: usize) -> Vec<i32> {
    let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
    (0..n).map(|_| rng.random_range(0..below as i32)).collect()
}

/// Runs all tasks of all phases in order.
fn each_task(phases: &[usize], mut run: impl FnMut(usize, usize)) {
    for (phase, &tasks) in phases.iter().enumerate() {
        (0..tasks).for_each(|task| run(phase, task));
    }
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    // Rows of tokens against a weight, and the weight's gradient, of the smallest and a large model.
    for (name, m, n, k, transposed) in [
        ("ff1 of d_model 64", 2048, 256, 64, false),
        ("gradient of ff1 of d_model 64", 64, 256, 2048, true),
        ("ff1 of d_model 512", 1024, 2048, 512, false),
        ("gradient of ff1 of d_model 512", 512, 2048, 1024, true),
    ] {
        let a_strides = if transposed { [0, 1, m] } else { [0, k, 1] };
        let g = Gemm { batch: 1, m, n, k, a: a_strides, b: [0, n, 1], c: [0, n, 1], accumulate: false };
        let (a, b, mut out) = (random(m * k), random(k * n), vec![f32::NAN; m * n]);
        group.throughput(Throughput::Elements(g.flops()));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                each_task(&g.phases(), |phase, task| {
                    // SAFETY: the operands have the extents of the shape, and out is nobody else's.
                    unsafe { g.run(phase, task, a.as_ptr(), b.as_ptr(), out.as_mut_ptr()) }
                })
            })
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    for (batch, seq, heads, d_head) in [(16, 128, 4, 16), (8, 256, 8, 32), (1, 2048, 4, 64)] {
        let d = RelAttention { batch, seq, heads, d_head };
        let (width, tokens) = (heads * d_head, batch * seq);
        let workspace = d.forward_workspace().max(d.backward_workspace());
        let inputs = [tokens * 3 * width, seq * width, width, width, tokens * width, batch * heads * seq];
        let outputs = [tokens * width, tokens * 3 * width, seq * width, width, width, workspace];
        let mut buffers: Vec<Vec<f32>> = inputs.iter().chain(&outputs).map(|&n| random(n)).collect();
        let p: Vec<*mut f32> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let shape = format!("{batch} x {seq} x {heads} x {d_head}");
        group.throughput(Throughput::Elements(d.forward_flops()));
        group.bench_function(format!("forward {shape}"), |bench| {
            bench.iter(|| {
                each_task(&d.forward_phases(), |phase, task| {
                    // SAFETY: qkv, rel, u, v, out, lse and the workspace, of the documented sizes.
                    unsafe { d.forward(phase, task, [0, 1, 2, 3, 4, 5, 11].map(|k: usize| p[k])) }
                })
            })
        });
        group.throughput(Throughput::Elements(d.backward_flops()));
        group.bench_function(format!("backward {shape}"), |bench| {
            bench.iter(|| {
                each_task(&d.backward_phases(), |phase, task| {
                    // SAFETY: as above, with dout, dqkv, drel, du and dv.
                    unsafe { d.backward(phase, task, std::array::from_fn(|k| p[k])) }
                })
            })
        });
    }
    group.finish();
}

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head and cross entropy");
    for (rows, width, vocab, chunk) in [(2048, 64, 256, Head::LOCAL_ROWS), (1024, 128, 4096, 256)] {
        let head = Head { rows, width, vocab, chunk, gradients: true };
        let (h, table, targets) = (random(rows * width), random(vocab * width), indices(rows, vocab));
        let (mut dh, mut dtable) = (vec![f32::NAN; rows * width], vec![f32::NAN; vocab * width]);
        let (mut loss, mut workspace) = (f32::NAN, vec![f32::NAN; head.workspace()]);
        let args = Args {
            h: h.as_ptr(),
            table: table.as_ptr(),
            targets: targets.as_ptr(),
            loss: &raw mut loss,
            dh: dh.as_mut_ptr(),
            dtable: dtable.as_mut_ptr(),
            workspace: workspace.as_mut_ptr(),
        };
        group.throughput(Throughput::Elements(head.flops()));
        group.bench_function(format!("{rows} x {width} x {vocab}"), |bench| {
            bench.iter(|| {
                each_task(&head.phases(), |phase, task| {
                    // SAFETY: every buffer has the size of the module's table.
                    unsafe { head.run(phase, task, args) }
                })
            })
        });
    }
    group.finish();
}

fn embedding(c: &mut Criterion) {
    let mut group = c.benchmark_group("embedding");
    let (rows, width, vocab) = (2048, 128, 256);
    let (table, named, mut out) = (random(vocab * width), indices(rows, vocab), vec![f32::NAN; rows * width]);
    let mut summed = vec![f32::NAN; vocab * width];
    let bytes = (rows * width * size_of::<f32>()) as u64;
    let gather = Gather { rows, width, vocab };
    group.throughput(Throughput::Bytes(2 * bytes));
    group.bench_function(format!("gather {rows} x {width}"), |bench| {
        bench.iter(|| {
            each_task(&gather.phases(), |phase, task| {
                // SAFETY: the buffers have the shapes, and every index is below vocab.
                unsafe { gather.run(phase, task, table.as_ptr(), named.as_ptr(), out.as_mut_ptr()) }
            })
        })
    });
    let scatter = ScatterAdd { rows, width, vocab, accumulate: false };
    let updates = random(rows * width);
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("scatter_add {rows} x {width}"), |bench| {
        bench.iter(|| {
            each_task(&scatter.phases(), |phase, task| {
                // SAFETY: as above.
                unsafe {
                    scatter.run(phase, task, named.as_ptr(), updates.as_ptr(), summed.as_mut_ptr());
                }
            })
        })
    });
    group.finish();
}

criterion_group!(benches, products, attention, head, embedding);
criterion_main!(benches);
