//! Criterion benchmarks of the way from a configuration to a planned program: building, each pass, fusion, lowering.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_compiler::lower::lower;
use isoflop_compiler::model::training_graph;
use isoflop_compiler::passes::{PIPELINE, by_name};

/// Gopher's layer with `n_layers` of them (80 is the 280B model).
fn model(n_layers: usize) -> ModelConfig {
    ModelConfig {
        n_layers,
        n_heads: 128,
        d_head: 128,
        d_model: 16_384,
        d_ff: 65_536,
        vocab_size: 32_000,
        seq_len: 2_048,
        tied_embeddings: true,
        bias: false,
        rms_eps: 1e-6,
        init_std: 0.02,
    }
}

fn stages(c: &mut Criterion) {
    let (model, step) =
        (model(8), StepConfig { batch: 1, optimizer: AdamW::default(), output_gradients: false });
    let mut g = training_graph(&model, &step).expect("the model builds");
    c.bench_function("build 8 layers", |b| {
        b.iter(|| training_graph(&model, &step).expect("the model builds"))
    });
    for (k, name) in PIPELINE.iter().enumerate() {
        let Some(pass) = by_name(name) else { continue };
        c.bench_function(&format!("{k} {name} 8 layers"), |b| {
            b.iter_batched_ref(|| g.clone(), |g| pass.apply(g), BatchSize::LargeInput)
        });
        pass.apply(&mut g);
    }
    c.bench_function("lower 8 layers", |b| b.iter(|| lower(&g).expect("the graph lowers")));
}

fn whole(c: &mut Criterion) {
    let step = StepConfig { batch: 1, optimizer: AdamW::default(), output_gradients: false };
    let mut group = c.benchmark_group("plan");
    group.sample_size(10);
    for layers in [8, 80] {
        let model = model(layers);
        group.bench_function(format!("{layers} layers"), |b| {
            b.iter(|| plan_program(&model, &step).expect("the model plans"))
        });
    }
    group.finish();
}

criterion_group!(benches, stages, whole);
criterion_main!(benches);
