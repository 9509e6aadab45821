//! The same configuration gives the same program and the same kernels, byte for byte.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{ProgramPlan, plan_program};
use isoflop_compiler::lower::mlir_function;
use isoflop_compiler::text::print;

fn plan(n_layers: usize, bias: bool) -> ProgramPlan {
    let model = ModelConfig {
        tied_embeddings: !bias,
        bias,
        rms_eps: 1e-5,
        ..ModelConfig::gopher(n_layers, 2, 8, 16, 96, 12)
    };
    plan_program(&model, &StepConfig::new(3)).expect("a plan")
}

/// All that reaches an artifact, as text.
fn texts(plan: &ProgramPlan) -> Vec<String> {
    let mut out = vec![print(&plan.fused)];
    for lowered in [&plan.train, &plan.eval] {
        out.push(serde_json::to_string_pretty(&lowered.program).expect("JSON"));
        out.extend(lowered.kernels.iter().map(mlir_function));
    }
    out
}

#[test]
fn planning_twice_gives_the_same_bytes() {
    for (n_layers, bias) in [(1, false), (3, true)] {
        let first = texts(&plan(n_layers, bias));
        assert!(first.len() > 20, "a training step of {} texts", first.len());
        assert_eq!(first, texts(&plan(n_layers, bias)));
    }
}

#[test]
fn planning_on_other_threads_gives_the_same_bytes() {
    let here = texts(&plan(2, false));
    let others: Vec<_> = (0..3).map(|_| std::thread::spawn(|| texts(&plan(2, false)))).collect();
    for other in others {
        assert_eq!(here, other.join().expect("a plan"));
    }
}

#[test]
fn equal_layers_share_kernels() {
    let (one, six) = (plan(1, false), plan(6, false));
    let kernels = |p: &ProgramPlan| {
        let mut symbols: Vec<String> = p.train.kernels.iter().map(|k| k.symbol()).collect();
        symbols.sort();
        symbols.dedup();
        symbols.len()
    };
    assert!(kernels(&six) < kernels(&one) + 20, "{} kernels became {}", kernels(&one), kernels(&six));
}
