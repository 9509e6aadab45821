//! The interpreter against finite differences and against facts known without it. Single operations are in the
//! filetests.

use super::*;
use crate::autodiff::gradients;
use crate::graph::{Library, RelAttentionCall, Role, Value};
use crate::matcher::match_head;
use crate::model::layers;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CALL: RelAttentionCall = RelAttentionCall { batch: 2, seq: 5, heads: 2, d_head: 3 };

/// out, lse, and the gradients of sum(out * dout).
fn attention_graph() -> Graph {
    let (tokens, width) = (CALL.batch * CALL.seq, CALL.heads * CALL.d_head);
    let mut g = Graph::new("attention");
    let shapes: [(&str, [usize; 2]); 5] = [
        ("qkv", [tokens, 3 * width]),
        ("rel", [CALL.seq, width]),
        ("u", [CALL.heads, CALL.d_head]),
        ("v", [CALL.heads, CALL.d_head]),
        ("dout", [tokens, width]),
    ];
    let x = shapes.map(|(name, shape)| g.new_input(name, TensorType::f32(&shape), Role::Data));
    let types = crate::graph::infer::infer(
        &Op::Call(Library::RelAttention(CALL)),
        &x[..4].iter().map(|&v| g.ty(v)).collect::<Vec<_>>(),
        &[],
    )
    .unwrap();
    let f = g.add(Op::Call(Library::RelAttention(CALL)), &x[..4], &types);
    let result = |node, result| Value { node, result };
    let given = [x[0], x[1], x[2], x[3], result(f, 0), result(f, 1), x[4]];
    let types: Vec<TensorType> = x[..4].iter().map(|&v| g.ty(v).clone()).collect();
    let b = g.add(Op::Call(Library::RelAttentionGrad(CALL)), &given, &types);
    for (k, name) in ["out", "lse"].iter().enumerate() {
        g.output(name, result(f, k as u16));
    }
    for (k, name) in ["dqkv", "drel", "du", "dv"].iter().enumerate() {
        g.output(name, result(b, k as u16));
    }
    g
}

fn random_inputs(g: &Graph, seed: u64) -> BTreeMap<String, Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |&n: &petgraph::stable_graph::NodeIndex| {
        let ty = g.ty(n.into());
        let data = (0..ty.elements()).map(|_| rng.random_range(-1.0..1.0)).collect();
        (g.input_name(n).unwrap().to_string(), Tensor::new(ty, data))
    };
    g.inputs.iter().map(draw).collect()
}

#[test]
fn attention_gradients_equal_finite_differences() {
    let g = attention_graph();
    let inputs = random_inputs(&g, 1);
    let gradients = interpret(&g, &inputs).unwrap();
    let loss = |inputs: &BTreeMap<String, Tensor>| -> f64 {
        let out = &interpret(&g, inputs).unwrap()["out"];
        out.data.iter().zip(&inputs["dout"].data).map(|(a, b)| a * b).sum()
    };
    for name in ["qkv", "rel", "u", "v"] {
        for k in 0..inputs[name].data.len() {
            let moved = |step: f64| {
                let mut inputs = inputs.clone();
                inputs.get_mut(name).unwrap().data[k] += step;
                loss(&inputs)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let gradient = gradients[&format!("d{name}")].data[k];
            assert!((slope - gradient).abs() < 1e-8, "d{name}[{k}] is {gradient}, the slope {slope}");
        }
    }
}

#[test]
fn the_first_token_attends_to_itself() {
    let g = attention_graph();
    let inputs = random_inputs(&g, 2);
    let found = interpret(&g, &inputs).unwrap();
    let width = CALL.heads * CALL.d_head;
    for c in 0..width {
        let value = inputs["qkv"].data[2 * width + c];
        assert!((found["out"].data[c] - value).abs() < 1e-15);
    }
    let (qkv, u, v) = (&inputs["qkv"].data, &inputs["u"].data, &inputs["v"].data);
    let rel = &inputs["rel"].data[(CALL.seq - 1) * width..];
    let terms = (0..CALL.d_head).map(|c| (qkv[c] + u[c]) * qkv[width + c] + (qkv[c] + v[c]) * rel[c]);
    let score = terms.sum::<f64>() / (CALL.d_head as f64).sqrt();
    assert!((found["lse"].data[0] - score).abs() < 1e-14, "the only score is its own log-sum-exp");
}

/// The call against the operations it stands for, and their derivative by autodiff.
#[test]
fn the_head_call_equals_the_operations_it_replaces() {
    for (rows, width, vocab) in [(1, 1, 2), (5, 3, 7), (300, 4, 6)] {
        let mut g = Graph::new("head");
        let h = g.new_input("h", TensorType::f32(&[rows, width]), Role::Data);
        let table = g.new_input("table", TensorType::f32(&[vocab, width]), Role::Data);
        let targets = g.new_input("targets", TensorType::i32(&[rows]), Role::Data);
        let logits = layers::linear(&mut g, h, table, None);
        let loss = layers::cross_entropy(&mut g, logits, targets);
        let gradients = gradients(&mut g, loss, &[h, table]).unwrap();
        for (name, v) in ["loss", "dh", "dtable"].into_iter().zip([loss, gradients[0], gradients[1]]) {
            g.output(name, v);
        }
        let mut call = g.clone();
        assert_eq!(match_head(&mut call), (0, 1));
        assert_eq!(call.nodes().node_count(), 4);

        let mut inputs = random_inputs(&g, 3);
        // Every word and, on both sides, two that are none.
        let ids = (0..rows).map(|i| (i % (vocab + 2)) as f64 - 1.0).collect();
        inputs.insert("targets".into(), Tensor::new(&TensorType::i32(&[rows]), ids));
        let (expected, found) = (interpret(&g, &inputs).unwrap(), interpret(&call, &inputs).unwrap());
        for (name, expected) in expected {
            for (e, f) in expected.data.iter().zip(&found[&name].data) {
                assert!((e - f).abs() < 1e-14, "{name} of {rows} rows is {f}, must be {e}");
            }
        }
    }
}

#[test]
fn f32_rounds_every_result_and_f64_none() {
    let mut g = Graph::new("third");
    let x = g.new_input("x", TensorType::f32(&[1]), Role::Data);
    let c = g.constant(3.0, TensorType::f32(&[1]));
    let y = g.div(x, c);
    let z = g.mul(y, c);
    g.output("y", y);
    g.output("z", z);
    let inputs = BTreeMap::from([("x".to_string(), Tensor::f32(&[1], vec![1.0]))]);
    assert_eq!(interpret(&g, &inputs).unwrap()["y"].data, [1.0 / 3.0]);
    assert_eq!(interpret_in(&g, &inputs, Precision::F32).unwrap()["y"].data, [(1.0f32 / 3.0) as f64]);
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let mut g = Graph::new("g");
    let x = g.new_input("x", TensorType::f32(&[2]), Role::Data);
    g.output("y", x);
    let given = |t: Tensor| BTreeMap::from([("x".to_string(), t)]);
    let message = |inputs| interpret(&g, &inputs).unwrap_err().to_string();
    assert_eq!(message(BTreeMap::new()), "graph g: input `x` (f32[2]) was not given; given: ");
    let wrong = "graph g: input `x` is f32[3] with 3 elements, must be f32[2]";
    assert_eq!(message(given(Tensor::f32(&[3], vec![0.0; 3]))), wrong);
    let short = "graph g: input `x` is f32[2] with 1 elements, must be f32[2]";
    assert_eq!(message(given(Tensor::f32(&[2], vec![0.0]))), short);
}
