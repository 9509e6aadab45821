//! Fusion never needs a larger arena than the same operations as kernels of their own.

#[allow(dead_code)]
mod common;

use common::random_graph;
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, optimize};
use isoflop_compiler::fuse::decision::{Outcome, Reason};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::lower::lower;
use isoflop_compiler::model;
use isoflop_compiler::passes::by_name;

/// Arena bytes of a graph after these passes.
fn arena(g: &Graph, passes: &[&str]) -> u64 {
    let mut g = g.clone();
    passes.iter().for_each(|p| by_name(p).unwrap().apply(&mut g));
    lower(&g).unwrap().program.arena_bytes
}

#[test]
fn random_graphs_need_no_more_fused_than_unfused_to_a_page() {
    let mut saved = 0;
    for seed in 0..800 {
        let mut g = random_graph(seed, 10 + (seed % 80) as usize, true);
        for pass in ["simplify", "cse", "dce", "legalize"] {
            by_name(pass).unwrap().apply(&mut g);
        }
        let (fused, unfused) = (arena(&g, &["fuse"]), arena(&g, &["outline"]));
        assert!(fused <= unfused + 4096, "seed {seed}: {fused} bytes fused, {unfused} not");
        saved += (fused < unfused) as usize;
    }
    assert!(saved > 100, "fusion saved memory in {saved} graphs only");
}

/// The nano ladder's ends and middle, and Gopher's sizes of up to 1.4B parameters; batch, layers, heads, width of a
/// head, model width, vocabulary, sequence.
#[test]
fn the_families_need_no_more_fused_than_unfused_and_nothing_is_refused_for_it() {
    let shapes = [
        (8, 1, 2, 8, 16, 256, 128),
        (8, 2, 4, 8, 32, 256, 128),
        (8, 6, 6, 32, 192, 256, 128),
        (2, 8, 16, 32, 512, 32000, 2048),
        (2, 8, 16, 64, 512, 32000, 2048),
        (1, 12, 12, 64, 896, 32000, 2048),
        (1, 24, 16, 128, 2048, 32000, 2048),
    ];
    for (batch, n_layers, n_heads, d_head, d_model, vocab_size, seq_len) in shapes {
        let model = ModelConfig::gopher(n_layers, n_heads, d_head, d_model, vocab_size, seq_len);
        let step = StepConfig::new(batch);
        let [fused, unfused] = [true, false].map(|fuse| {
            let mut g = model::training_graph(&model, &step).unwrap();
            let (log, _) = optimize(&mut g, &OptimizeOptions { fuse, ..Default::default() }).unwrap();
            let refused = |d: &&_| matches!(d, Outcome::Refused(Reason::RaisesPeak));
            let outcomes: Vec<Outcome> = log.decisions.iter().map(|d| d.outcome).collect();
            assert_eq!(outcomes.iter().filter(refused).count(), 0, "{n_layers} layers of {d_model}");
            lower(&g).unwrap().program.arena_bytes
        });
        assert!(fused < unfused, "{n_layers} layers of {d_model}: {fused} bytes fused, {unfused} not");
    }
}
