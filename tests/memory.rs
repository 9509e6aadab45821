//! Programs within a memory budget: recomputed values have the bits of kept ones, and a budget is met or refused.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileError, CompileOptions, compile_plan, plan_program};
use isoflop_compiler::mlir::Target;
use isoflop_compiler::recompute::budget::Search;
use isoflop_runtime::exec::Executor;
use std::path::Path;

fn model(n_layers: usize, d_model: usize, tied_embeddings: bool, bias: bool) -> ModelConfig {
    ModelConfig {
        tied_embeddings,
        bias,
        init_std: 0.05,
        ..ModelConfig::gopher(n_layers, 2, d_model / 2, d_model, 96, 24)
    }
}

fn options(folder: &Path) -> CompileOptions {
    CompileOptions {
        target: Target::host(),
        artifacts: folder.join("artifacts"),
        cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache"),
        threads: 2,
    }
}

/// Bits of the loss and the norm of the gradient of every step, then of the state after the last.
fn bits(model: &ModelConfig, step: &StepConfig, folder: &Path) -> Vec<u32> {
    let plan = plan_program(model, step).expect("a plan");
    let compiled = compile_plan(&plan, model, step, &options(folder)).expect("an artifact");
    let mut exec = Executor::load(&compiled.artifact, 2).expect("an executor");
    exec.init_state(7).expect("a state");
    let tokens = step.batch * model.seq_len;
    let mut bits = Vec::new();
    for t in 0..6 {
        exec.poison();
        let ids: Vec<i32> =
            (0..tokens).map(|i| ((i * i + 31 * t + 7 * i) % model.vocab_size) as i32).collect();
        let next: Vec<i32> = ids.iter().map(|id| (id + 1) % model.vocab_size as i32).collect();
        exec.set_input_i32("tokens", &ids, model.vocab_size).expect("ids");
        exec.set_input_i32("targets", &next, model.vocab_size).expect("ids");
        exec.set_input_f32("lr", &[1e-2]).expect("a rate");
        for (k, beta) in step.optimizer.betas.iter().enumerate() {
            let correction = (1.0 - beta.powi(t as i32 + 1)) as f32;
            exec.set_input_f32(&format!("bias_correction{}", k + 1), &[correction]).expect("a correction");
        }
        exec.run("train").expect("a step");
        for output in ["loss", "grad_norm"] {
            bits.extend(exec.read_f32(output).expect("an output").iter().map(|x| x.to_bits()));
        }
    }
    let names: Vec<String> = exec.state_names().into_iter().map(String::from).collect();
    for name in names {
        bits.extend(exec.state(&name).expect("a state").iter().map(|x| x.to_bits()));
    }
    bits
}

#[test]
fn recomputed_values_have_the_bits_of_kept_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    for (model, batch) in [(model(3, 32, true, false), 6), (model(5, 16, false, true), 3)] {
        let step = StepConfig::new(batch);
        let plan = plan_program(&model, &step).expect("a plan");
        let kept = bits(&model, &step, folder.path());
        let loss = |bits: &[u32], t: usize| f32::from_bits(bits[2 * t]);
        assert!(loss(&kept, 5) < loss(&kept, 0), "nothing is learned");
        let cost = isoflop_compiler::cost::CostModel::default();
        let curve = Search::new(&plan.fused, &plan.train, &cost).curve().expect("a curve");
        let least = curve.last().expect("points");
        assert!(curve.len() > 4 && least.bytes * 10 < plan.memory_bytes() * 7, "{curve:#?}");
        for point in curve.iter().skip(1).step_by(2).chain([least]) {
            let tight = StepConfig { memory_budget: Some(point.bytes), ..step.clone() };
            let plan = plan_program(&model, &tight).unwrap_or_else(|e| panic!("{e}"));
            let again = plan.recomputed.as_ref().expect("something is computed again");
            assert!(plan.train.program.total_bytes() <= point.bytes && again.extra_us > 0.0);
            let found = bits(&model, &tight, folder.path());
            let differs = found.iter().zip(&kept).position(|(a, b)| a != b);
            assert!(found.len() == kept.len() && differs.is_none(), "number {differs:?}: {again:#?}");
        }
        // Less than anything reaches.
        let tight = StepConfig { memory_budget: Some(least.bytes / 2), ..step.clone() };
        let error = plan_program(&model, &tight).map(|_| ()).expect_err("too little");
        let message = error.to_string();
        assert!(matches!(error, CompileError::Budget { .. }), "{message}");
        for part in ["the memory budget is", "the training step takes", "at least", "weights", "largest: "] {
            assert!(message.contains(part), "{message}");
        }
    }
}
