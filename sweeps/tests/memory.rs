//! The memory plans of every model that ships: arenas close to what is alive at once.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileError, plan_program};
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
        let model = ModelConfig::gopher(n_layers, n_heads, d_head, d_model, vocab_size, seq_len);
        let step = StepConfig::new(batch);
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

#[test]
fn budgets_are_met_with_arenas_as_tight() {
    let mut all = [steps("nano.toml"), benched()].concat();
    // The smaller of the published sizes: the search is the same for the larger ones.
    all.extend(steps("gopher.toml").into_iter().take(2));
    for (name, model, step) in &all {
        let whole = plan_program(model, step).expect("a plan").train.program;
        let outside = whole.total_bytes() - whole.arena_bytes;
        for share in [9, 7, 5] {
            let budget = outside + whole.arena_bytes / 10 * share;
            let tight = StepConfig { memory_budget: Some(budget), ..step.clone() };
            let plan = match plan_program(model, &tight) {
                Ok(plan) => plan,
                // Gradients and attention's workspace cannot be computed again.
                Err(CompileError::Budget { peak, .. }) => {
                    assert!(peak.bytes > budget && share < 9, "{name}: {peak}");
                    continue;
                }
                Err(e) => panic!("{name}: {e}"),
            };
            assert!(plan.memory_bytes() <= budget && plan.recomputed.is_some(), "{name}");
            let (arena, least) = (plan.train.program.arena_bytes, plan.train.program.arena_lower_bound);
            assert!(arena <= least + least / 50, "{name}, {budget}: {arena} of {least}");
        }
    }
}
