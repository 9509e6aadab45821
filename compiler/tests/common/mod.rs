//! Random well-typed graphs, for tests that compare a graph with what a pass made of it.

use isoflop_compiler::graph::{
    Axes, Binary, Comparison, Graph, Op, ReduceKind, Role, TensorType, Unary, Value,
};
use isoflop_compiler::interp::Tensor;
use isoflop_kernels::DType;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Constants rules look for, and some they do not.
const CONSTANTS: [f64; 9] = [0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 0.1, -0.0, 8.0];

/// A graph of about `size` operations on small tensors, with much for simplification to find: neutral constants,
/// inverse shape operations, repetitions. Values stay moderate, so that rounding does not drown comparisons. A `smooth`
/// graph has no comparisons and no casts.
pub fn random_graph(seed: u64, size: usize, smooth: bool) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut g = Graph::new("random");
    let mut values: Vec<Value> = (0..4)
        .map(|k| {
            let rank = rng.random_range(0..4);
            let shape: Vec<usize> = (0..rank).map(|_| rng.random_range(1..4)).collect();
            g.new_input(&format!("x{k}"), TensorType::f32(&shape), Role::Data)
        })
        .collect();
    for k in 0..size {
        if k % 5 == 0 {
            g.set_scope(&format!("part.{}", k / 5));
        }
        // Recent values are likelier operands, so chains form.
        let from = rng.random_range(0..2) * values.len().saturating_sub(4);
        let x = values[rng.random_range(from..values.len())];
        let made = step(&mut g, &mut rng, x, &values, smooth);
        let small = g.ty(made).elements() <= 200 && g.ty(made).rank() <= 5;
        if small {
            values.push(made);
        }
    }
    values.retain(|&v| g.ty(v).dtype == DType::F32);
    for (k, v) in values.iter().rev().take(4).enumerate() {
        g.output(&format!("y{k}"), *v);
    }
    g
}

fn step(g: &mut Graph, rng: &mut impl Rng, x: Value, values: &[Value], smooth: bool) -> Value {
    let ty = g.ty(x).clone();
    let rank = ty.rank();
    let whole = ty.shape.to_vec();
    let constant = CONSTANTS[rng.random_range(0..CONSTANTS.len())];
    if ty.dtype != DType::F32 {
        return g.cast(x, DType::F32);
    }
    let partner = |rng: &mut dyn Rng| {
        let same: Vec<Value> = values.iter().copied().filter(|&v| *g.ty(v) == ty).collect();
        same[rng.random_range(0..same.len())]
    };
    match rng.random_range(0..22) {
        0 | 1 => {
            let u = [Unary::Neg, Unary::Abs, Unary::Tanh, Unary::Sin, Unary::StopGradient, Unary::Neg];
            g.unary(u[rng.random_range(0..u.len())], x)
        }
        2 | 3 => {
            let y = partner(rng);
            let b = [Binary::Add, Binary::Sub, Binary::Max, Binary::Min][rng.random_range(0..4)];
            g.binary(b, x, y)
        }
        4 => {
            let y = partner(rng);
            let t = g.unary(Unary::Tanh, y);
            g.mul(x, t)
        }
        5..=7 => {
            let c = g.constant_like(constant, x);
            let b = [Binary::Add, Binary::Mul, Binary::Sub, Binary::Max, Binary::Min][rng.random_range(0..5)];
            if rng.random() { g.binary(b, x, c) } else { g.binary(b, c, x) }
        }
        8 => {
            let c = g.constant_like([1.0, 2.0, 4.0, 3.0, -0.5][rng.random_range(0..5)], x);
            g.div(x, c)
        }
        9 if !smooth => {
            let y = partner(rng);
            let c = g.compare(Comparison::ALL[rng.random_range(0..6)], x, y);
            g.select(c, y, x)
        }
        10 if !smooth => {
            let to = [DType::F64, DType::F32, DType::I32, DType::Bf16][rng.random_range(0..4)];
            g.cast(x, to)
        }
        11 | 12 => {
            let mut shape = whole;
            let mut dims: Vec<usize> = (0..rank).collect();
            let at = rng.random_range(0..=rank);
            shape.insert(at, rng.random_range(1..4));
            dims.iter_mut().filter(|d| **d >= at).for_each(|d| *d += 1);
            g.broadcast(x, &dims, &shape)
        }
        13 => {
            let mut shape = whole;
            shape.rotate_left(1.min(rank));
            if rng.random() {
                shape = vec![ty.elements()];
            }
            g.reshape(x, &shape)
        }
        14 | 15 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            if rank > 1 {
                perm.swap(rng.random_range(0..rank), rng.random_range(0..rank));
            }
            g.transpose(x, &perm)
        }
        16 if rank > 0 => {
            let axis = rng.random_range(0..rank);
            let start = rng.random_range(0..whole[axis]);
            let limit = rng.random_range(start + 1..=whole[axis]);
            g.slice_axis(x, axis, start, limit)
        }
        17 => {
            let pads = |rng: &mut dyn Rng| (0..rank).map(|_| rng.random_range(0..2)).collect::<Vec<usize>>();
            let (low, high) = (pads(rng), pads(rng));
            g.pad(x, &low, &high, constant)
        }
        18 if rank > 0 => {
            let y = partner(rng);
            g.concat(&[x, y], rng.random_range(0..rank))
        }
        19 => {
            let axes: Axes = (0..rank).filter(|_| rng.random()).collect();
            let kind = if rng.random() { ReduceKind::Sum } else { ReduceKind::Max };
            let r = g.apply(Op::Reduce { kind, axes }, &[x]);
            g.unary(Unary::Tanh, r)
        }
        20 if rank > 0 => {
            let y = partner(rng);
            let axis = rng.random_range(0..rank);
            let batch: Vec<usize> = (0..rank).filter(|&k| k != axis && rng.random()).collect();
            let d = g.dot(x, y, [&batch, &batch], [&[axis], &[axis]]);
            g.unary(Unary::Sin, d)
        }
        // The gradient of a split: two halves of a padded whole.
        _ if rank > 0 => {
            let y = partner(rng);
            let mut side = vec![0; rank];
            let axis = rng.random_range(0..rank);
            side[axis] = whole[axis];
            let none = vec![0; rank];
            let (a, b) = (g.pad(x, &none, &side, 0.0), g.pad(y, &side, &none, 0.0));
            g.add2(a, b)
        }
        _ => g.iota(0, TensorType::f32(&[3])),
    }
}

/// Inputs between -1 and 1.
pub fn random_inputs(g: &Graph, seed: u64) -> BTreeMap<String, Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = BTreeMap::new();
    for &n in &g.inputs {
        let ty = g.ty(n.into());
        let data = (0..ty.elements()).map(|_| f64::from(rng.random_range(-1.0f32..1.0))).collect();
        out.insert(g.input_name(n).unwrap_or_default().to_string(), Tensor::new(ty, data));
    }
    out
}
