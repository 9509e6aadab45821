//! The parameters of a model: names, shapes, initial values, and whether weight decay applies, in one list that the
//! graph, the counts and the checkpoints follow.

use crate::config::ModelConfig;
use crate::graph::Value;
use isoflop_kernels::program::Init;

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// As in checkpoints: `embed`, `layers.3.wqkv`, `norm_f`.
    pub name: String,
    /// Row-major; weights are [out, in].
    pub shape: Vec<usize>,
    pub init: Init,
    /// Weight matrices decay; gains, u, v and biases do not.
    pub decays: bool,
}

impl Param {
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// All parameters in the order of the forward pass. `wqkv` holds the query, key and value weights one after the
/// other ([3 * n_heads * d_head, d_model]); row h * d_head + c of each third is head h, channel c.
///
/// Weights start normal with `init_std`, the two that write into the residual stream with init_std / sqrt(2 n_layers)
/// (Radford et al. 2019); gains at 1; u, v and biases at 0. Gopher's initialisation is not published.
pub fn parameters(cfg: &ModelConfig) -> Vec<Param> {
    let (d, a, f, v) = (cfg.d_model, cfg.d_attn(), cfg.d_ff, cfg.vocab_size);
    let std = Init::Normal { std: cfg.init_std };
    let out_std = Init::Normal { std: cfg.init_std / (2.0 * cfg.n_layers as f64).sqrt() };
    let mut list = Vec::new();
    let mut push = |name: String, shape: &[usize], init: Init, decays: bool| {
        list.push(Param { name, shape: shape.to_vec(), init, decays });
    };
    push("embed".into(), &[v, d], std, true);
    for i in 0..cfg.n_layers {
        let n = |s: &str| format!("layers.{i}.{s}");
        push(n("norm1"), &[d], Init::Ones, false);
        push(n("wqkv"), &[3 * a, d], std, true);
        if cfg.bias {
            push(n("bqkv"), &[3 * a], Init::Zeros, false);
        }
        push(n("wr"), &[a, d], std, true);
        if cfg.bias {
            push(n("br"), &[a], Init::Zeros, false);
        }
        push(n("u"), &[cfg.n_heads, cfg.d_head], Init::Zeros, false);
        push(n("v"), &[cfg.n_heads, cfg.d_head], Init::Zeros, false);
        push(n("wo"), &[d, a], out_std, true);
        if cfg.bias {
            push(n("bo"), &[d], Init::Zeros, false);
        }
        push(n("norm2"), &[d], Init::Ones, false);
        push(n("w1"), &[f, d], std, true);
        if cfg.bias {
            push(n("b1"), &[f], Init::Zeros, false);
        }
        push(n("w2"), &[d, f], out_std, true);
        if cfg.bias {
            push(n("b2"), &[d], Init::Zeros, false);
        }
    }
    push("norm_f".into(), &[d], Init::Ones, false);
    if !cfg.tied_embeddings {
        push("head".into(), &[v, d], std, true);
    }
    if cfg.bias {
        push("bhead".into(), &[v], Init::Zeros, false);
    }
    list
}

/// Hands out the values of [`parameters`] in order, checking that the forward pass asks in the same order.
pub(super) struct Cursor<'a> {
    names: std::vec::IntoIter<Param>,
    values: std::slice::Iter<'a, Value>,
    bias: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(cfg: &ModelConfig, values: &'a [Value]) -> Self {
        Cursor { names: parameters(cfg).into_iter(), values: values.iter(), bias: cfg.bias }
    }

    pub fn next(&mut self, last: &str) -> Value {
        match (self.names.next(), self.values.next()) {
            (Some(p), Some(&v)) if p.name.rsplit('.').next() == Some(last) => v,
            (found, _) => panic!("the forward pass asks for {last}, the parameter list has {found:?}"),
        }
    }

    pub fn bias(&mut self, last: &str) -> Option<Value> {
        self.bias.then(|| self.next(last))
    }
}
