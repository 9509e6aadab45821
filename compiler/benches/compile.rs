//! Criterion benchmarks of the way from a configuration to a planned program: building, each pass, fusion, lowering.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_compiler::lower::lower;
use isoflop_compiler::model::training_graph;
use isoflop_compiler::passes::{PIPELINE, by_name};

/// Gopher's layer with `n_layers` of them (80 is the 280B model).
fn model(n_layers: usize) -> ModelConfig {
    ModelConfig::gopher(n_layers, 128, 128, 16_384, 32_000, 2_048)
}

fn stages(c: &mut Criterion) {
    let (model, step) = (model(8), StepConfig::new(1));
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
    let step = StepConfig::new(1);
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
