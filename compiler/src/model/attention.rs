//! Causal Transformer-XL attention from primitive operations (Dai et al. 2019). The matcher recognises exactly this
//! graph and its derivative and puts library calls in their place; the interpreter can run it as it stands.

use crate::graph::{Comparison, Graph, ReduceKind, RelAttentionCall, TensorType, Unary, Value};

pub type Dims = RelAttentionCall;

/// Inputs: qkv [batch*seq, 3*heads*d_head], rel [seq, heads*d_head] (row p is distance seq-1-p), u and v
/// [heads, d_head]. Result [batch*seq, heads*d_head].
pub fn relative_attention(g: &mut Graph, dims: Dims, [qkv, rel, u, v]: [Value; 4]) -> Value {
    let Dims { batch: b, seq: s, heads: h, d_head: k } = dims;
    let split = g.reshape(qkv, &[b, s, 3, h, k]);
    let mut parts = [split; 3];
    for (i, part) in parts.iter_mut().enumerate() {
        let one = g.slice_axis(split, 2, i, i + 1);
        *part = g.reshape(one, &[b, s, h, k]);
    }
    let [query, key, value] = parts;
    let rel = g.reshape(rel, &[s, h, k]);
    let shape = [b, s, h, k];
    let u = g.broadcast(u, &[2, 3], &shape);
    let v = g.broadcast(v, &[2, 3], &shape);
    let query_u = g.add2(query, u);
    let query_v = g.add2(query, v);
    // [b, h, s, s]: by content, and by distance
    let content = g.dot(query_u, key, [&[0, 2], &[0, 2]], [&[3], &[3]]);
    let position = g.dot(query_v, rel, [&[2], &[1]], [&[3], &[2]]);
    let position = g.transpose(position, &[1, 0, 2, 3]);
    let position = shift(g, position);
    let scores = g.add2(content, position);
    let scores = g.scale(scores, 1.0 / (k as f64).sqrt());
    let square = [b, h, s, s];
    let row = g.iota(2, TensorType::i32(&square));
    let column = g.iota(3, TensorType::i32(&square));
    let seen = g.compare(Comparison::Le, column, row);
    let never = g.constant_like(f64::NEG_INFINITY, scores);
    let scores = g.select(seen, scores, never);
    let largest = g.reduce(ReduceKind::Max, scores, &[3]);
    let largest = g.unary(Unary::StopGradient, largest);
    let largest = g.broadcast(largest, &[0, 1, 2], &square);
    let shifted = g.sub(scores, largest);
    let e = g.unary(Unary::Exp, shifted);
    let z = g.reduce_sum(e, &[3]);
    let z = g.broadcast(z, &[0, 1, 2], &square);
    let p = g.div(e, z);
    let out = g.dot(p, value, [&[0, 1], &[0, 2]], [&[3], &[1]]);
    let out = g.transpose(out, &[0, 2, 1, 3]);
    g.reshape(out, &[b * s, h * k])
}

/// x[.., i, p], p the column of distance s-1-p, to y[.., i, j] = x[.., i, s-1-(i-j)] for j <= i; garbage above the
/// diagonal. One column of padding makes each row of the flat matrix start one element later than the last.
fn shift(g: &mut Graph, x: Value) -> Value {
    let shape = g.ty(x).shape.clone();
    let (b, h, s) = (shape[0], shape[1], shape[2]);
    let padded = g.pad(x, &[0, 0, 0, 1], &[0, 0, 0, 0], 0.0);
    let skewed = g.reshape(padded, &[b, h, s + 1, s]);
    g.slice_axis(skewed, 2, 1, s + 1)
}
