//! The golden training step (tests/golden, made by PyTorch and confirmed by JAX) through the interpreter: as the model
//! builder and autodiff wrote it, and after every pass.

use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, optimize};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::interp::{Tensor, interpret};
use isoflop_compiler::model;
use isoflop_compiler::passes::pipeline::Options;
use isoflop_kernels::DType;
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashMap};

struct Golden {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    config: ModelConfig,
    step: StepConfig,
    lr: f64,
    steps: usize,
}

fn golden(tied: bool) -> Golden {
    let name = if tied { "golden_tied_from_f64" } else { "golden_untied_from_f64" };
    let path = format!("{}/../tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap();
    let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
    let meta: HashMap<String, String> = meta.metadata().clone().unwrap();
    let number = |k: &str| meta[k].parse::<f64>().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .iter()
        .map(|(name, t)| {
            let words = t.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            let data: Vec<f64> = match t.dtype() {
                safetensors::Dtype::F32 => words.map(|b| f32::from_le_bytes(b) as f64).collect(),
                _ => words.map(|b| i32::from_le_bytes(b) as f64).collect(),
            };
            (name.to_string(), (t.shape().to_vec(), data))
        })
        .collect();
    let n = |k: &str| number(k) as usize;
    Golden {
        tensors,
        config: ModelConfig {
            tied_embeddings: tied,
            rms_eps: number("rms_eps"),
            ..ModelConfig::gopher(n("layers"), n("heads"), n("d_head"), n("d_model"), n("vocab"), n("seq"))
        },
        step: StepConfig {
            optimizer: AdamW {
                betas: [number("beta1"), number("beta2")],
                eps: number("adam_eps"),
                weight_decay: number("weight_decay"),
                clip: number("clip"),
            },
            output_gradients: true,
            ..StepConfig::new(n("batch"))
        },
        lr: number("lr"),
        steps: n("steps"),
    }
}

impl Golden {
    /// The tensor of one of our parameters: wqkv is the file's wq, wk and wv one after the other.
    fn param(&self, prefix: &str, name: &str) -> Vec<f64> {
        match name.strip_suffix("wqkv") {
            Some(layer) => ["wq", "wk", "wv"]
                .iter()
                .flat_map(|w| self.tensors[&format!("{prefix}.{layer}{w}")].1.clone())
                .collect(),
            None => self.tensors[&format!("{prefix}.{name}")].1.clone(),
        }
    }

    fn rel_pos(&self) -> Tensor {
        let (s, d) = (self.config.seq_len, self.config.d_model);
        let mut data = vec![0.0; s * d];
        for p in 0..s {
            let t = (s - 1 - p) as f64;
            for k in 0..d / 2 {
                let angle = t * 10000f64.powf(-2.0 * k as f64 / d as f64);
                data[p * d + k] = angle.sin() as f32 as f64;
                data[p * d + d / 2 + k] = angle.cos() as f32 as f64;
            }
        }
        Tensor { dtype: DType::F32, shape: [s, d].into_iter().collect(), data }
    }

    /// Runs all steps on this graph and compares loss, gradients and parameters within the golden tolerances.
    fn check(&self, g: &Graph) {
        let decls = model::params::parameters(&self.config);
        let mut inputs: BTreeMap<String, Tensor> = BTreeMap::new();
        for t in ["tokens", "targets"] {
            let (shape, data) = &self.tensors[t];
            let shape = shape.iter().copied().collect();
            inputs.insert(t.into(), Tensor { dtype: DType::I32, shape, data: data.clone() });
        }
        inputs.insert("rel_pos".into(), self.rel_pos());
        for d in &decls {
            let shape = d.shape.as_slice();
            inputs.insert(format!("param.{}", d.name), Tensor::f32(shape, self.param("param", &d.name)));
            for m in ["adam_m", "adam_v"] {
                let zeros = vec![0.0; d.elements() as usize];
                inputs.insert(format!("{m}.{}", d.name), Tensor::f32(shape, zeros));
            }
        }
        let [b1, b2] = self.step.optimizer.betas;
        for step in 1..=self.steps {
            inputs.insert("lr".into(), Tensor::scalar(self.lr));
            inputs.insert("bias_correction1".into(), Tensor::scalar(1.0 - b1.powi(step as i32)));
            inputs.insert("bias_correction2".into(), Tensor::scalar(1.0 - b2.powi(step as i32)));
            let out = interpret(g, &inputs).unwrap();
            close("loss", &out["loss"].data, &self.tensors["loss"].1[step - 1..step], 2e-6);
            close("grad_norm", &out["grad_norm"].data, &self.tensors["grad_norm"].1[step - 1..step], 2e-6);
            for d in &decls {
                if step == 1 {
                    close(
                        &d.name,
                        &out[&format!("grad.{}", d.name)].data,
                        &self.param("grad", &d.name),
                        2e-6,
                    );
                }
                let want = self.param(&format!("step{step}"), &d.name);
                close(&d.name, &out[&format!("param.{}", d.name)].data, &want, 5e-6);
            }
            for (name, t) in out {
                if inputs.contains_key(&name) {
                    inputs.insert(name, t);
                }
            }
        }
    }
}

fn close(what: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        assert!((f - w).abs() <= tolerance, "{what}[{i}] is {f}, golden {w}");
    }
}

fn check_all(tied: bool) {
    let golden = golden(tied);
    let raw = model::training_graph(&golden.config, &golden.step).unwrap();
    golden.check(&raw);
    let without = |disable: &[&str], fuse| OptimizeOptions {
        pipeline: Options {
            disable: disable.iter().map(|d| d.to_string()).collect(),
            verify: true,
            ..Options::default()
        },
        fuse,
        ..OptimizeOptions::default()
    };
    let variants = [
        without(&[], true),
        without(&["match-attention"], true),
        without(&["match-head"], true),
        without(&["fold", "cse", "recompute"], true),
        without(&[], false),
        without(&["match-attention", "match-head", "fold", "cse", "recompute"], false),
    ];
    for options in variants {
        let mut g = raw.clone();
        optimize(&mut g, &options).unwrap();
        golden.check(&g);
    }
}

#[test]
fn tied() {
    check_all(true);
}

#[test]
fn untied() {
    check_all(false);
}
