//! The Gopher model as a graph of primitive operations, and its training step: forward, backward, clip, AdamW.
//!
//! Activations are [tokens, width] throughout, tokens = batch * seq_len; only attention looks at sequences.

pub mod adamw;
pub mod attention;
pub mod layers;
pub mod params;

use crate::autodiff::{self, AutodiffError};
use crate::config::{ModelConfig, StepConfig};
use crate::graph::{Graph, Role, TensorType, Value};
use isoflop_kernels::program::Init;
use params::{Param, parameters};

/// Values of the graph that the host feeds, besides parameters.
struct Data {
    /// i32 [tokens]
    tokens: Value,
    /// i32 [tokens]
    targets: Value,
    /// f32 [seq_len, d_model]
    rel_pos: Value,
}

fn data_inputs(g: &mut Graph, cfg: &ModelConfig, batch: usize) -> Data {
    let ids = TensorType::i32(&[batch, cfg.seq_len]);
    let tokens = g.new_input("tokens", ids.clone(), Role::Data);
    let targets = g.new_input("targets", ids, Role::Data);
    let table = TensorType::f32(&[cfg.seq_len, cfg.d_model]);
    let rel_pos = g.new_input("rel_pos", table, Role::Table(Init::RelativeSinusoid));
    let flat = [batch * cfg.seq_len];
    Data { tokens: g.reshape(tokens, &flat), targets: g.reshape(targets, &flat), rel_pos }
}

/// Mean cross entropy of one batch in nats per token: inputs `tokens`, `targets`, `rel_pos`, `param.*`; output `loss`.
pub fn loss_graph(cfg: &ModelConfig, batch: usize) -> Graph {
    let mut g = Graph::new("eval");
    let data = data_inputs(&mut g, cfg, batch);
    let params = param_inputs(&mut g, &parameters(cfg));
    let loss = forward(&mut g, cfg, batch, &data, &params);
    g.output("loss", loss);
    g
}

/// One optimiser step. Inputs: those of [`loss_graph`], `lr`, `bias_correction1`, `bias_correction2` (1 - beta^t),
/// `adam_m.*` and `adam_v.*`. Outputs: `loss`, `grad_norm` (before clipping), and the next `param.*`, `adam_m.*`,
/// `adam_v.*`; with `output_gradients` also `grad.*`, before clipping.
pub fn training_graph(cfg: &ModelConfig, step: &StepConfig) -> Result<Graph, AutodiffError> {
    let mut g = Graph::new("train");
    let data = data_inputs(&mut g, cfg, step.batch);
    let schedule = adamw::schedule_inputs(&mut g);
    let decls = parameters(cfg);
    let params = param_inputs(&mut g, &decls);
    let moments = adamw::moment_inputs(&mut g, &decls);
    let loss = forward(&mut g, cfg, step.batch, &data, &params);
    let grads = autodiff::gradients(&mut g, loss, &params)?;
    g.output("loss", loss);
    adamw::update(&mut g, &step.optimizer, schedule, &decls, &params, &moments, &grads);
    if step.output_gradients {
        for (d, &v) in decls.iter().zip(&grads) {
            g.output(&format!("grad.{}", d.name), v);
        }
    }
    Ok(g)
}

fn param_inputs(g: &mut Graph, decls: &[Param]) -> Vec<Value> {
    decls
        .iter()
        .map(|d| g.new_input(&format!("param.{}", d.name), TensorType::f32(&d.shape), Role::State(d.init)))
        .collect()
}

fn forward(g: &mut Graph, cfg: &ModelConfig, batch: usize, data: &Data, params: &[Value]) -> Value {
    let mut p = params::Cursor::new(cfg, params);
    g.set_scope("embed");
    let embed = p.next("embed");
    let mut x = g.gather(embed, data.tokens);
    let dims = attention::Dims { batch, seq: cfg.seq_len, heads: cfg.n_heads, d_head: cfg.d_head };
    for i in 0..cfg.n_layers {
        let norm1 = p.next("norm1");
        g.set_scope(&format!("layers.{i}.norm1"));
        let h = layers::rms_norm(g, x, norm1, cfg.rms_eps);
        g.set_scope(&format!("layers.{i}.qkv"));
        let qkv = layers::linear(g, h, p.next("wqkv"), p.bias("bqkv"));
        g.set_scope(&format!("layers.{i}.rel"));
        let rel = layers::linear(g, data.rel_pos, p.next("wr"), p.bias("br"));
        g.set_scope(&format!("layers.{i}.attention"));
        let (u, v) = (p.next("u"), p.next("v"));
        let a = attention::relative_attention(g, dims, [qkv, rel, u, v]);
        g.set_scope(&format!("layers.{i}.out"));
        let o = layers::linear(g, a, p.next("wo"), p.bias("bo"));
        g.set_scope(&format!("layers.{i}.residual1"));
        x = g.add2(x, o);
        g.set_scope(&format!("layers.{i}.norm2"));
        let h = layers::rms_norm(g, x, p.next("norm2"), cfg.rms_eps);
        g.set_scope(&format!("layers.{i}.ff1"));
        let a = layers::linear(g, h, p.next("w1"), p.bias("b1"));
        g.set_scope(&format!("layers.{i}.gelu"));
        let a = layers::gelu_tanh(g, a);
        g.set_scope(&format!("layers.{i}.ff2"));
        let o = layers::linear(g, a, p.next("w2"), p.bias("b2"));
        g.set_scope(&format!("layers.{i}.residual2"));
        x = g.add2(x, o);
    }
    g.set_scope("norm_f");
    let x = layers::rms_norm(g, x, p.next("norm_f"), cfg.rms_eps);
    g.set_scope("head");
    let head = if cfg.tied_embeddings { embed } else { p.next("head") };
    let logits = layers::linear(g, x, head, p.bias("bhead"));
    g.set_scope("loss");
    layers::cross_entropy(g, logits, data.targets)
}
