//! Fusion never needs more memory than the same operations as kernels of their own.

mod common;

use common::random_graph;
use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, optimize};
use isoflop_compiler::cost::CostModel;
use isoflop_compiler::fuse::fuse;
use isoflop_compiler::lower::lower;
use isoflop_compiler::model;
use isoflop_compiler::passes::by_name;

#[test]
fn random() {
    let (mut n, mut worse, mut bad) = (0, 0, 0);
    for seed in 0..4000u64 {
        let mut g = random_graph(seed, 10 + (seed % 80) as usize, true);
        for p in ["simplify", "cse", "dce", "legalize"] {
            (by_name(p).unwrap().run)(&mut g);
        }
        let p = |merge: bool| {
            let mut g = g.clone();
            fuse(&mut g, &CostModel::default(), merge);
            lower(&g).map(|l| (l.program.arena_bytes, l.program.arena_lower_bound))
        };
        let (Ok(a), Ok(b)) = (p(true), p(false)) else { bad += 1; continue };
        n += 1;
        if a.0 > b.0 { worse += 1; if worse < 30 { println!("seed {seed}: {a:?} > {b:?}"); } }
    }
    println!("{n} lowered, {bad} not, {worse} worse");
}

#[test]
fn family() {
    let shapes = [(1, 2, 8, 16, 256, 128, 8), (2, 2, 16, 32, 256, 128, 8), (4, 4, 16, 64, 256, 128, 8), (8, 8, 24, 192, 256, 128, 8),
      (8, 16, 32, 512, 32000, 512, 2), (12, 12, 64, 768, 32000, 2048, 1), (12, 12, 128, 1536, 32000, 2048, 1), (80, 128, 128, 16384, 32000, 2048, 1)];
    for (n_layers, n_heads, d_head, d_model, vocab_size, seq_len, batch) in shapes {
        let model = ModelConfig { n_layers, n_heads, d_head, d_model, d_ff: 4 * d_model, vocab_size, seq_len, tied_embeddings: true, bias: false, rms_eps: 1e-6, init_std: 0.02 };
        let step = StepConfig { batch, optimizer: AdamW::default(), output_gradients: false };
        let p = |merge: bool| {
            let t = std::time::Instant::now();
            let mut g = model::training_graph(&model, &step).unwrap();
            let nodes = g.nodes.node_count();
            let t0 = t.elapsed();
            optimize(&mut g, &OptimizeOptions { fuse: merge, ..Default::default() }).unwrap();
            let t1 = t.elapsed();
            let l = lower(&g).unwrap();
            println!("{n_layers} {d_model} merge {merge}: nodes {nodes} build {t0:?} opt {:?} lower {:?} launches {} arena {} bound {}", t1 - t0, t.elapsed() - t1, l.program.launches.len(), l.program.arena_bytes, l.program.arena_lower_bound);
        };
        p(true); p(false);
    }
}
