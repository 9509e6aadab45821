//! The memory plans of every model that ships: arenas close to what is alive at once.

use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_sweeps::{compile, file, plan};
use std::path::Path;

/// The different steps of a sweep that ships, by name.
fn steps(example: &str) -> Vec<(String, ModelConfig, StepConfig)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let sweep = file::read(&path).expect("a sweep");
    let plan = plan::plan(&sweep).expect("a plan");
    let distinct = compile::steps(&plan.runs).distinct;
    distinct
        .iter()
        .map(|run| (format!("{} batch {}", run.size, run.batch), run.model.clone(), run.step()))
        .collect()
}

/// What the benchmarks measure: layers, heads, d_head, d_model, vocabulary, context, batch.
const BENCHED: [[usize; 7]; 4] = [
    [4, 4, 16, 64, 256, 128, 16],
    [4, 4, 32, 128, 256, 128, 16],
    [6, 8, 32, 256, 256, 256, 8],
    [8, 16, 32, 512, 32_000, 512, 2],
];

fn benched() -> Vec<(String, ModelConfig, StepConfig)> {
    let one = |[n_layers, n_heads, d_head, d_model, vocab_size, seq_len, batch]: [usize; 7]| {
        let model = ModelConfig {
            n_layers,
            n_heads,
            d_head,
            d_model,
            d_ff: 4 * d_model,
            vocab_size,
            seq_len,
            tied_embeddings: true,
            bias: false,
            rms_eps: 1e-6,
            init_std: 0.02,
        };
        let step = StepConfig { batch, optimizer: AdamW::default(), output_gradients: false };
        (format!("{n_layers} layers of {d_model}, batch {batch}"), model, step)
    };
    BENCHED.map(one).to_vec()
}

#[test]
fn arenas_are_within_two_percent_of_what_is_alive_at_once() {
    let mut all = [steps("nano.toml"), steps("gopher.toml"), benched()].concat();
    // One sequence a step: weights, gradients and attention's workspace weigh more, activations less.
    let single: Vec<_> = all
        .iter()
        .map(|(name, model, step)| {
            (format!("{name}, then 1"), model.clone(), StepConfig { batch: 1, ..step.clone() })
        })
        .collect();
    all.extend(single);
    for (name, model, step) in &all {
        let plan = plan_program(model, step).expect("a plan");
        for program in [&plan.train.program, &plan.eval.program] {
            let (arena, least) = (program.arena_bytes, program.arena_lower_bound);
            assert!(least > 0 && arena <= least + least / 50, "{name}, {}: {arena} of {least}", program.name);
        }
    }
}
