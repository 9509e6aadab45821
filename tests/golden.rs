//! The golden training step (tests/golden, made by PyTorch and confirmed by JAX) through compiled CPU code: loss, every
//! gradient, and the parameters after three steps; tied and untied; fused and unfused.

use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileOptions, OptimizeOptions, compile_programs, optimize};
use isoflop_compiler::lower::{lower, mlir_function};
use isoflop_compiler::mlir::{Emit, Target, compile_all};
use isoflop_compiler::model::{params::parameters, training_graph};
use isoflop_compiler::passes::pipeline;
use isoflop_runtime::exec::Executor;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

type Tensors = HashMap<String, Vec<f32>>;

fn read(tied: bool) -> (HashMap<String, f64>, Tensors) {
    let name = if tied { "golden_tied_from_f64" } else { "golden_untied_from_f64" };
    let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let meta = header.metadata().clone().unwrap();
    let numbers = meta.iter().filter_map(|(k, v)| Some((k.clone(), v.parse().ok()?))).collect();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = HashMap::new();
    for (name, t) in file.iter() {
        let words = t.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let data = match t.dtype() {
            Dtype::F32 => words.map(f32::from_le_bytes).collect(),
            // Token ids are far below 2^24: exact as f32.
            _ => words.map(|b| i32::from_le_bytes(b) as f32).collect(),
        };
        tensors.insert(name.to_string(), data);
    }
    (numbers, tensors)
}

/// The golden tensor of one of our parameters: wqkv is wq, wk and wv one after the other.
fn of_param(tensors: &Tensors, prefix: &str, name: &str) -> Vec<f32> {
    match name.strip_suffix("wqkv") {
        Some(layer) => {
            ["wq", "wk", "wv"].iter().flat_map(|w| tensors[&format!("{prefix}.{layer}{w}")].clone()).collect()
        }
        None => tensors[&format!("{prefix}.{name}")].clone(),
    }
}

fn close(what: &str, found: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        assert!((f - w).abs() <= tolerance, "{what}[{i}] is {f}, golden {w}");
    }
}

fn check(tied: bool, options: &OptimizeOptions, threads: usize) {
    check_on(Target::host(), tied, options, threads);
}

fn check_on(target: Target, tied: bool, options: &OptimizeOptions, threads: usize) {
    let (number, tensors) = read(tied);
    let n = |k: &str| number[k] as usize;
    let model = ModelConfig {
        tied_embeddings: tied,
        rms_eps: number["rms_eps"],
        ..ModelConfig::gopher(n("layers"), n("heads"), n("d_head"), n("d_model"), n("vocab"), n("seq"))
    };
    let betas = [number["beta1"], number["beta2"]];
    let optimizer =
        AdamW { betas, eps: number["adam_eps"], weight_decay: number["weight_decay"], clip: number["clip"] };
    let step = StepConfig { optimizer, output_gradients: true, ..StepConfig::new(n("batch")) };
    let mut graph = training_graph(&model, &step).unwrap();
    optimize(&mut graph, options).unwrap();
    let lowered = lower(&graph).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let to = CompileOptions {
        target,
        artifacts: folder.path().join("artifacts"),
        cache: folder.path().join("cache"),
        threads: 2,
    };
    let compiled = compile_programs(&[&lowered], &serde_json::json!({}), &to).unwrap();
    let mut exec = Executor::load(&compiled.artifact, threads).unwrap();
    exec.init_state(1).unwrap();
    let params = parameters(&model);
    for p in &params {
        exec.state_mut(&format!("param.{}", p.name))
            .unwrap()
            .copy_from_slice(&of_param(&tensors, "param", &p.name));
    }
    let ids = |name: &str| tensors[name].iter().map(|&x| x as i32).collect::<Vec<i32>>();
    exec.set_input_i32("tokens", &ids("tokens"), model.vocab_size).unwrap();
    exec.set_input_i32("targets", &ids("targets"), model.vocab_size).unwrap();
    exec.set_input_f32("lr", &[number["lr"] as f32]).unwrap();
    for t in 1..=n("steps") {
        exec.poison();
        for (k, beta) in betas.iter().enumerate() {
            let correction = (1.0 - beta.powi(t as i32)) as f32;
            exec.set_input_f32(&format!("bias_correction{}", k + 1), &[correction]).unwrap();
        }
        exec.run("train").unwrap();
        close("loss", exec.read_f32("loss").unwrap(), &tensors["loss"][t - 1..t], 2e-6);
        for p in &params {
            if t == 1 {
                let grad = format!("grad.{}", p.name);
                close(&grad, exec.read_f32(&grad).unwrap(), &of_param(&tensors, "grad", &p.name), 2e-6);
            }
            if p.name == params[0].name {
                close(
                    "grad_norm",
                    exec.read_f32("grad_norm").unwrap(),
                    &tensors["grad_norm"][t - 1..t],
                    4e-6,
                );
            }
            let want = of_param(&tensors, &format!("step{t}"), &p.name);
            close(&p.name, exec.state(&format!("param.{}", p.name)).unwrap(), &want, 5e-6);
        }
    }
}

fn without(disable: &[&str], fuse: bool) -> OptimizeOptions {
    let disable = disable.iter().map(|d| d.to_string()).collect();
    let pipeline = pipeline::Options { disable, verify: true, ..Default::default() };
    OptimizeOptions { pipeline, fuse, ..Default::default() }
}

#[test]
fn as_compiled_by_default() {
    for tied in [true, false] {
        check(tied, &OptimizeOptions::default(), 1);
        check(tied, &OptimizeOptions::default(), 2);
    }
}

#[test]
fn without_fusion() {
    check(true, &without(&[], false), 2);
}

#[test]
fn from_primitives_alone() {
    check(true, &without(&["match-attention", "match-head", "fold", "cse", "recompute"], false), 2);
    check(false, &without(&["match-attention", "match-head"], true), 2);
    check(false, &without(&["match-head"], true), 2);
}

/// Code for older processors runs here too; none has the vectors that kernels prefer.
#[cfg(target_arch = "x86_64")]
#[test]
fn as_compiled_for_older_machines() {
    for target in [Target::x86_64_v3(), Target::x86_64_v2(), Target::x86_64()] {
        check_on(target, true, &OptimizeOptions::default(), 2);
    }
    check_on(Target::x86_64(), true, &without(&[], false), 1);
}

/// Every kernel of the step has an object for 64-bit ARM.
#[test]
fn kernels_compile_for_arm() {
    let model = ModelConfig {
        tied_embeddings: false,
        bias: true,
        rms_eps: 1e-5,
        ..ModelConfig::gopher(2, 2, 8, 16, 50, 12)
    };
    let step = StepConfig::new(2);
    for options in [OptimizeOptions::default(), without(&["match-attention", "match-head"], false)] {
        let mut graph = training_graph(&model, &step).unwrap();
        optimize(&mut graph, &options).unwrap();
        let mut texts: Vec<String> = lower(&graph).unwrap().kernels.iter().map(mlir_function).collect();
        texts.sort();
        texts.dedup();
        assert!(texts.len() > 10);
        for object in compile_all(&texts, &Target::aarch64(), Emit::Object, 2) {
            let bytes = object.unwrap().bytes;
            // ELF, little-endian; machine 183 is AArch64.
            assert_eq!((&bytes[..4], &bytes[18..20]), (&b"\x7fELF"[..], &[183, 0][..]));
        }
    }
}
