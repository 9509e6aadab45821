//! The gradient of every differentiable operation against central finite differences, both by the interpreter in f64.

use isoflop_compiler::autodiff::gradients;
use isoflop_compiler::graph::{
    Axes, Binary, Comparison, Graph, Op, ReduceKind, Role, TensorType, Unary, Value,
};
use isoflop_compiler::interp::{Tensor, interpret};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Range;

/// Half the distance of the two points of a finite difference.
const STEP: f64 = 1e-5;

/// Checks d loss / d x for every input of these shapes, with elements from `range`, where the loss weighs every element
/// of what `f` makes differently.
fn check(shapes: &[&[usize]], range: Range<f64>, f: impl FnOnce(&mut Graph, &[Value]) -> Value) {
    let mut g = Graph::new("g");
    let name = |k: usize| format!("x{k}");
    let xs: Vec<Value> =
        (0..shapes.len()).map(|k| g.new_input(&name(k), TensorType::f32(shapes[k]), Role::Data)).collect();
    let y = f(&mut g, &xs);
    let weights = g.new_input("weights", g.ty(y).clone(), Role::Data);
    let weighted = g.mul(y, weights);
    let axes: Axes = (0..g.ty(y).rank()).collect();
    let loss = g.reduce_sum(weighted, &axes);
    let found = gradients(&mut g, loss, &xs).expect("a differentiable graph");
    g.output("loss", loss);
    found.iter().enumerate().for_each(|(k, &d)| g.output(&format!("d{k}"), d));

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut inputs = BTreeMap::new();
    for &n in &g.inputs {
        let ty = g.ty(n.into());
        let data = (0..ty.elements()).map(|_| rng.random_range(range.clone())).collect();
        inputs.insert(g.input_name(n).expect("an input").to_string(), Tensor::new(ty, data));
    }
    let at = |inputs: &BTreeMap<String, Tensor>| interpret(&g, inputs).expect("a graph that runs");
    let outputs = at(&inputs);
    for k in 0..shapes.len() {
        let d = &outputs[&format!("d{k}")];
        assert_eq!(d.shape[..], *shapes[k]);
        for (i, &found) in d.data.iter().enumerate() {
            let loss = |by: f64| {
                let mut moved = inputs.clone();
                moved.get_mut(&name(k)).expect("an input").data[i] += by;
                at(&moved)["loss"].data[0]
            };
            let expected = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            let error = (found - expected).abs();
            assert!(
                error < 1e-6 * expected.abs().max(1.0),
                "d{k}[{i}] is {found}, differences give {expected}"
            );
        }
    }
}

fn unary(u: Unary, range: Range<f64>) {
    check(&[&[2, 3]], range, |g, x| g.unary(u, x[0]));
}

fn binary(b: Binary, range: Range<f64>) {
    check(&[&[2, 3], &[2, 3]], range.clone(), |g, x| g.binary(b, x[0], x[1]));
    // Both operands one value: the contributions add up.
    check(&[&[4]], range, |g, x| {
        let y = g.unary(Unary::Sin, x[0]);
        let y = g.unary(Unary::Abs, y);
        let half = g.constant_like(0.5, y);
        let above = g.add2(y, half);
        let m = g.binary(b, above, x[0]);
        g.mul(m, above)
    });
}

#[test]
fn neg() {
    unary(Unary::Neg, -2.0..2.0);
}

#[test]
fn abs() {
    unary(Unary::Abs, -2.0..-0.1);
    unary(Unary::Abs, 0.1..2.0);
}

#[test]
fn exp() {
    unary(Unary::Exp, -2.0..2.0);
}

#[test]
fn log() {
    unary(Unary::Log, 0.2..2.0);
}

#[test]
fn tanh() {
    unary(Unary::Tanh, -2.0..2.0);
}

#[test]
fn sqrt() {
    unary(Unary::Sqrt, 0.2..2.0);
}

#[test]
fn rsqrt() {
    unary(Unary::Rsqrt, 0.2..2.0);
}

#[test]
fn sin() {
    unary(Unary::Sin, -2.0..2.0);
}

#[test]
fn cos() {
    unary(Unary::Cos, -2.0..2.0);
}

#[test]
fn add() {
    binary(Binary::Add, -2.0..2.0);
}

#[test]
fn sub() {
    binary(Binary::Sub, -2.0..2.0);
}

#[test]
fn mul() {
    binary(Binary::Mul, -2.0..2.0);
}

#[test]
fn div() {
    binary(Binary::Div, 0.3..2.0);
}

#[test]
fn max() {
    binary(Binary::Max, -2.0..2.0);
}

#[test]
fn min() {
    binary(Binary::Min, -2.0..2.0);
}

#[test]
fn pow() {
    binary(Binary::Pow, 0.3..2.0);
}

#[test]
fn select() {
    check(&[&[3, 3], &[3, 3], &[3, 3]], -2.0..2.0, |g, x| {
        let when = g.compare(Comparison::Lt, x[0], x[1]);
        let y = g.mul(x[1], x[2]);
        g.select(when, x[0], y)
    });
}

#[test]
fn cast() {
    use isoflop_kernels::DType;
    check(&[&[5]], -2.0..2.0, |g, x| {
        let wide = g.cast(x[0], DType::F64);
        let squared = g.mul(wide, wide);
        g.cast(squared, DType::F32)
    });
}

#[test]
fn broadcast() {
    for (dims, shape) in [(&[0, 1][..], &[2, 3, 2][..]), (&[1, 2], &[2, 2, 3]), (&[0, 2], &[2, 4, 3])] {
        check(&[&[2, 3], &[]], -2.0..2.0, |g, x| {
            let a = g.broadcast(x[0], dims, shape);
            let b = g.broadcast(x[1], &[], shape);
            g.mul(a, b)
        });
    }
}

#[test]
fn reshape() {
    check(&[&[2, 6]], -2.0..2.0, |g, x| g.reshape(x[0], &[3, 4]));
}

#[test]
fn transpose() {
    check(&[&[2, 3, 4]], -2.0..2.0, |g, x| g.transpose(x[0], &[1, 2, 0]));
}

#[test]
fn slice() {
    check(&[&[4, 5]], -2.0..2.0, |g, x| g.slice(x[0], &[1, 0], &[3, 4]));
}

#[test]
fn pad() {
    check(&[&[2, 3]], -2.0..2.0, |g, x| g.pad(x[0], &[1, 0], &[0, 2], 0.5));
}

#[test]
fn concat() {
    check(&[&[2, 3], &[2, 1]], -2.0..2.0, |g, x| g.concat(&[x[0], x[1], x[0]], 1));
}

#[test]
fn reduce_sum() {
    for axes in [&[][..], &[0], &[1], &[2], &[0, 2], &[0, 1, 2]] {
        check(&[&[2, 3, 2]], -2.0..2.0, |g, x| g.reduce_sum(x[0], axes));
    }
}

#[test]
fn reduce_max() {
    for axes in [&[0][..], &[1], &[0, 1]] {
        check(&[&[3, 4]], -2.0..2.0, |g, x| g.reduce(ReduceKind::Max, x[0], axes));
    }
}

#[test]
fn dot() {
    type Case<'a> = ([&'a [usize]; 2], [&'a [usize]; 2], [&'a [usize]; 2]);
    let cases: [Case; 6] = [
        ([&[2, 3], &[3, 4]], [&[], &[]], [&[1], &[0]]),
        ([&[2, 3], &[4, 3]], [&[], &[]], [&[1], &[1]]),
        ([&[2, 3, 2], &[2, 2, 4]], [&[0], &[0]], [&[2], &[1]]),
        // The batch is not first, and two axes contract in another order on each side.
        ([&[3, 2, 4], &[4, 3, 2]], [&[1], &[2]], [&[0, 2], &[1, 0]]),
        ([&[2, 3], &[4]], [&[], &[]], [&[], &[]]),
        ([&[4], &[4]], [&[], &[]], [&[0], &[0]]),
    ];
    for (shapes, batch, contract) in cases {
        check(&shapes, -1.0..1.0, |g, x| g.dot(x[0], x[1], batch, contract));
    }
    check(&[&[3, 3]], -1.0..1.0, |g, x| g.dot(x[0], x[0], [&[], &[]], [&[1], &[0]]));
}

/// Indices 0, 1, 2, 0, ...: one is named twice, in a table of five rows two are not named at all.
fn indices(g: &mut Graph, n: usize) -> Value {
    let i = g.iota(0, TensorType::i32(&[n]));
    let three = g.constant_like(3.0, i);
    let times = g.div(i, three);
    let whole = g.mul(times, three);
    g.sub(i, whole)
}

#[test]
fn gather() {
    check(&[&[5, 2]], -2.0..2.0, |g, x| {
        let i = indices(g, 4);
        g.gather(x[0], i)
    });
}

#[test]
fn scatter_add() {
    check(&[&[4, 2]], -2.0..2.0, |g, x| {
        let i = indices(g, 4);
        g.scatter_add(i, x[0], 5)
    });
    check(&[&[4, 2], &[5, 2]], -2.0..2.0, |g, x| {
        let i = indices(g, 4);
        g.scatter_add_to(x[1], i, x[0])
    });
}

#[test]
fn stop_gradient_stops() {
    let mut g = Graph::new("g");
    let x = g.new_input("x", TensorType::f32(&[]), Role::Data);
    let stopped = g.unary(Unary::StopGradient, x);
    let loss = g.mul(stopped, x);
    let d = gradients(&mut g, loss, &[x]).expect("a differentiable graph")[0];
    g.output("d", d);
    let inputs = BTreeMap::from([("x".to_string(), Tensor::scalar(3.0))]);
    assert_eq!(interpret(&g, &inputs).expect("a graph that runs")["d"].data, [3.0]);
}

#[test]
fn a_value_read_many_times_gathers_its_gradients() {
    check(&[&[2, 3], &[3]], -1.0..1.0, |g, x| {
        let gain = g.broadcast(x[1], &[1], &[2, 3]);
        let a = g.mul(x[0], gain);
        let b = g.unary(Unary::Tanh, a);
        let c = g.mul(a, b);
        let sum = g.reduce_sum(c, &[1]);
        let sum = g.broadcast(sum, &[0], &[2, 3]);
        let d = g.mul(sum, x[0]);
        g.add2(d, b)
    });
}

#[test]
fn what_has_no_gradient_says_so() {
    let mut g = Graph::new("g");
    let x = g.new_input("x", TensorType::f32(&[2]), Role::Data);
    let vector = gradients(&mut g, x, &[x]).unwrap_err().to_string();
    assert_eq!(vector, "a gradient starts from a scalar, found f32[2]");
    // What the loss does not depend on has a gradient of zeros.
    let y = g.new_input("y", TensorType::f32(&[2]), Role::Data);
    let loss = g.reduce_sum(y, &[0]);
    let d = gradients(&mut g, loss, &[x]).expect("a differentiable graph")[0];
    assert!(matches!(g.op(d.node), Op::Constant { value: 0.0 }));
}
