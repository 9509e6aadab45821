//! What a GPU would compute, without a GPU: the PTX of generated kernels is executed instruction by instruction and held to
//! the interpreter. Bounds, alignment, races and lanes that do not meet are errors of the executor.
#![cfg(feature = "mlir")]

#[path = "../common/mod.rs"]
mod common;
mod machine;
mod rows;

use common::{random_graph, random_inputs};
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, optimize};
use isoflop_compiler::graph::{Graph, Op};
use isoflop_compiler::machine::{Arch, Cuda};
use isoflop_compiler::model;
use isoflop_compiler::passes::pipeline;
use isoflop_compiler::text::print;
use isoflop_kernels::DType;
use isoflop_kernels::program::Call;
use machine::{Ready, Tensors, wrong};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Few multiprocessors, so that blocks take several rows each.
fn gpu(arch: Arch, multiprocessors: usize) -> Cuda {
    Cuda { arch, multiprocessors }
}

fn optimized(g: &Graph, disable: &[&str]) -> Graph {
    let mut g = g.clone();
    let disable = disable.iter().map(|d| d.to_string()).collect();
    let pipeline = pipeline::Options { disable, ..pipeline::Options::default() };
    optimize(&mut g, &OptimizeOptions { pipeline, ..OptimizeOptions::default() }).expect("the passes run");
    g
}

/// Runs a graph as a GPU would and says what is wrong; kernels that ran and launches of partial results otherwise.
fn check(g: &Graph, given: &Tensors, gpu: Cuda, cache: &Path) -> Result<usize, String> {
    let fused = optimized(g, &["match-attention", "match-head"]);
    let ready = Ready::new(&fused, gpu, cache)?;
    let found = ready.run(&fused, given)?;
    let wrong = wrong(g, given, &found);
    if wrong.is_empty() { Ok(ready.program().kernels.len()) } else { Err(wrong.join("; ")) }
}

/// All seeds on two threads; panics with the graphs that are wrong.
fn all(seeds: std::ops::Range<u64>, graph: impl Fn(u64) -> Graph + Sync) -> usize {
    let cache = tempfile::tempdir().expect("a folder");
    let (next, failed, kernels) = (AtomicU64::new(seeds.start), Mutex::new(String::new()), AtomicU64::new(0));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let g = graph(seed);
                    let arch = if seed % 2 == 0 { Arch::Sm80 } else { Arch::Sm90 };
                    match check(
                        &g,
                        &random_inputs(&g, seed),
                        gpu(arch, 1 + (seed % 3) as usize),
                        cache.path(),
                    ) {
                        Ok(n) => _ = kernels.fetch_add(n as u64, Ordering::Relaxed),
                        Err(e) => {
                            let mut failed = failed.lock().expect("no panic");
                            failed.push_str(&format!("// seed {seed}: {e}\n{}\n", print(&g)));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{failed}");
    kernels.into_inner() as usize
}

#[test]
fn random_rows_agree_with_the_interpreter() {
    let kernels = all(0..200, |seed| rows::random_rows(seed, 4 + (seed % 14) as usize));
    assert!(kernels > 400, "{kernels} kernels");
}

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let kernels = all(0..150, |seed| random_graph(seed, 4 + (seed % 30) as usize, false));
    assert!(kernels > 400, "{kernels} kernels");
}

/// Inputs of a training step: ids below the vocabulary, all else small.
fn step_inputs(g: &Graph, vocab: usize) -> Tensors {
    let mut given = random_inputs(g, 7);
    for &n in &g.inputs {
        let (Op::Input { name, .. }, ty) = (g.op(n), g.ty(n.into())) else { continue };
        let t = given.get_mut(name).expect("an input");
        match name.as_str() {
            _ if ty.dtype == DType::I32 => {
                t.data.iter_mut().enumerate().for_each(|(k, x)| *x = ((k * 7 + 3) % vocab) as f64);
            }
            "lr" => t.data.fill(0.01),
            n if n.starts_with("bias_correction") => t.data.fill(0.1),
            n if n.starts_with("adam_v") => t.data.iter_mut().for_each(|x| *x = x.abs()),
            _ => {}
        }
        t.data.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    }
    given
}

#[test]
fn a_training_step_agrees_with_the_interpreter() {
    let cache = tempfile::tempdir().expect("a folder");
    let vocab = 24;
    let config = ModelConfig::gopher(2, 2, 6, 12, vocab, 8);
    let g = model::training_graph(&config, &StepConfig::new(3)).expect("a graph");
    let given = step_inputs(&g, vocab);
    for arch in [Arch::Sm80, Arch::Sm90a] {
        let kernels = check(&g, &given, gpu(arch, 2), cache.path()).unwrap_or_else(|e| panic!("{arch}: {e}"));
        assert!(kernels > 10, "{kernels} kernels");
    }
}

#[test]
fn a_gpu_has_no_chains_and_every_kernel_a_grid() {
    let config = ModelConfig::gopher(2, 4, 16, 64, 256, 128);
    let g = optimized(&model::training_graph(&config, &StepConfig::new(4)).expect("a graph"), &[]);
    let cache = tempfile::tempdir().expect("a folder");
    let ready = Ready::new(&g, gpu(Arch::Sm90, 132), cache.path()).expect("kernels");
    let p = ready.program();
    assert!(p.chains.is_empty());
    assert!(p.launches.iter().all(|l| !matches!(l.call, Call::GemmSquares(_))));
    for k in &p.kernels {
        let launch = k.cuda.expect("a grid");
        assert!(launch.blocks >= 1 && launch.threads.is_power_of_two() && launch.threads <= 1024, "{k:?}");
    }
}
