//! Layers of the model, each from primitive operations.

use crate::graph::{Comparison, Graph, ReduceKind, TensorType, Unary, Value};

/// x: [T, d], gain: [d]. y = x / sqrt(mean(x^2) + eps) * gain (Zhang & Sennrich 2019).
pub fn rms_norm(g: &mut Graph, x: Value, gain: Value, eps: f64) -> Value {
    let shape = g.ty(x).shape.clone();
    let squares = g.mul(x, x);
    let sum = g.reduce_sum(squares, &[1]);
    let mean = g.scale(sum, 1.0 / shape[1] as f64);
    let eps = g.constant_like(eps, mean);
    let shifted = g.add2(mean, eps);
    let inverse = g.unary(Unary::Rsqrt, shifted);
    let inverse = g.broadcast(inverse, &[0], &shape);
    let normal = g.mul(x, inverse);
    let gain = g.broadcast(gain, &[1], &shape);
    g.mul(normal, gain)
}

/// x: [T, in], w: [out, in], b: [out]. y = x w^T + b.
pub fn linear(g: &mut Graph, x: Value, w: Value, b: Option<Value>) -> Value {
    let y = g.linear(x, w);
    match b {
        Some(b) => {
            let shape = g.ty(y).shape.clone();
            let b = g.broadcast(b, &[1], &shape);
            g.add2(y, b)
        }
        None => y,
    }
}

/// 0.5 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) (Hendrycks & Gimpel 2016).
pub fn gelu_tanh(g: &mut Graph, z: Value) -> Value {
    let z2 = g.mul(z, z);
    let z3 = g.mul(z2, z);
    let cubic = g.scale(z3, 0.044715);
    let inner = g.add2(z, cubic);
    let inner = g.scale(inner, (2.0 / std::f64::consts::PI).sqrt());
    let t = g.unary(Unary::Tanh, inner);
    let one = g.constant_like(1.0, t);
    let t1 = g.add2(t, one);
    let half = g.scale(z, 0.5);
    g.mul(half, t1)
}

/// logits: [T, V], targets: i32 [T]. Mean over T of -log softmax(logits)[target], in nats.
pub fn cross_entropy(g: &mut Graph, logits: Value, targets: Value) -> Value {
    let shape = g.ty(logits).shape.clone();
    let largest = g.reduce(ReduceKind::Max, logits, &[1]);
    let largest = g.unary(Unary::StopGradient, largest);
    let largest = g.broadcast(largest, &[0], &shape);
    let shifted = g.sub(logits, largest);
    let e = g.unary(Unary::Exp, shifted);
    let z = g.reduce_sum(e, &[1]);
    let log_z = g.unary(Unary::Log, z);
    let column = g.iota(1, TensorType::i32(&shape));
    let target = g.broadcast(targets, &[0], &shape);
    let hit = g.compare(Comparison::Eq, column, target);
    let zero = g.constant_like(0.0, shifted);
    let picked = g.select(hit, shifted, zero);
    let picked = g.reduce_sum(picked, &[1]);
    let nll = g.sub(log_z, picked);
    let sum = g.reduce_sum(nll, &[0]);
    g.scale(sum, 1.0 / shape[0] as f64)
}
