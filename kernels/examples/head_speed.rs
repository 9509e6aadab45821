//! Times the head with its cross entropy and gradients against the multiply-add peak of one core, chunk by chunk.
//!
//! `cargo run --release -p isoflop-kernels --example head_speed [-- rows,width,vocab,chunk ...]`

use isoflop_kernels::cpu::head::{Args, Head};
use timing::{Shared, fastest_seconds, peak};

mod timing;

fn measure(head: Head, peak: f64) {
    let Head { rows, width, vocab, .. } = head;
    let filled = |n: usize| (0..n).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect::<Vec<f32>>();
    let (h, table) = (filled(rows * width), filled(vocab * width));
    let targets: Vec<i32> = (0..rows).map(|i| (i * 7919 % vocab) as i32).collect();
    let sizes = [1, h.len(), table.len(), head.workspace()];
    let mut results = sizes.map(|n| vec![0.0f32; n]);
    let [loss, dh, dtable, workspace] = results.each_mut().map(|v| Shared(v.as_mut_ptr()));
    let inputs = [&h, &table].map(|v| Shared(v.as_ptr().cast_mut()));
    let ids = Shared(targets.as_ptr().cast_mut().cast());
    let run = |phase, task| {
        let [h, table] = inputs.each_ref().map(|p| p.0.cast_const());
        let (loss, dh, dtable) = (&loss, &dh, &dtable);
        let args = Args {
            h,
            table,
            targets: { &ids }.0.cast(),
            loss: loss.0,
            dh: dh.0,
            dtable: dtable.0,
            workspace: { &workspace }.0,
        };
        // SAFETY: buffers have the documented sizes; the barrier separates phases.
        unsafe { head.run(phase, task, args) }
    };
    print!("{rows:>5} x {width:>4} x {vocab:>6}, chunk {:>5}", head.chunk);
    let repeat = (1e10 / head.flops() as f64).clamp(3.0, 51.0) as usize;
    for threads in [1, 2] {
        let seconds = fastest_seconds(threads, repeat, &head.phases(), run);
        let rate = head.flops() as f64 / seconds / 1e9;
        let share = 100.0 * rate / (peak * threads as f64);
        print!(" | {:>9.3} {rate:>6.1} {share:>4.0} %", seconds * 1e3);
    }
    println!();
}

fn main() {
    let mut heads: Vec<Head> = Vec::new();
    for argument in std::env::args().skip(1) {
        let numbers: Vec<usize> = argument.split(',').filter_map(|n| n.parse().ok()).collect();
        let &[rows, width, vocab, chunk] = numbers.as_slice() else {
            eprintln!("{argument:?}: expected rows,width,vocab,chunk, for example 2048,64,256,128");
            std::process::exit(2);
        };
        heads.push(Head { rows, width, vocab, chunk, gradients: true });
    }
    if heads.is_empty() {
        let small =
            [64, 128, 256].into_iter().flat_map(|width| [64, 128, 1024].map(|c| (2048, width, 256, c)));
        let large = [128, 256, 512, 1024].map(|chunk| (1024, 512, 32000, chunk));
        let shapes = small.chain(large);
        heads = shapes
            .map(|(rows, width, vocab, chunk)| Head { rows, width, vocab, chunk, gradients: true })
            .collect();
    }
    let peak = peak().unwrap_or(f64::NAN);
    println!("multiply-add peak of one core: {peak:.1} GFLOP/s");
    println!("rows x width x vocabulary, chunk | ms, GFLOP/s, share of peak (1 thread) | (2 threads)");
    for head in heads {
        measure(head, peak);
    }
}
