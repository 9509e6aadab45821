//! The worked example of docs/adding-a-pass.md does what the page says, and keeps what graphs compute.

mod common;
#[path = "../examples/adding_a_pass.rs"]
mod example;

use common::{random_graph, random_inputs};
use example::{TWICE, cases, on_a_model};
use isoflop_compiler::graph::{Graph, Unary};
use isoflop_compiler::interp::interpret;
use isoflop_compiler::verify::verify;

#[test]
fn its_cases_hold() {
    assert_eq!(cases(false).unwrap_or_else(|e| panic!("{e}")), 4);
}

#[test]
fn every_norm_and_gelu_of_a_model_has_one() {
    let trace = on_a_model().unwrap_or_else(|e| panic!("{e}"));
    let step = trace.steps.iter().find(|s| s.pass == "twice").expect("it ran");
    // Two layers with two norms and a GELU each, and the last norm.
    let adds = step.changes().into_iter().find(|(op, ..)| *op == "add");
    assert!(adds.is_some_and(|(_, before, after)| before - after == 2 * (2 + 1) + 1), "{trace}");
}

/// A random graph whose outputs y are also returned as tanh y + y + y.
fn with_sums(seed: u64) -> Graph {
    let mut g = random_graph(seed, 40, false);
    for (k, o) in g.outputs.clone().into_iter().enumerate() {
        let tanh = g.unary(Unary::Tanh, o.value);
        let sum = g.add2(tanh, o.value);
        let sum = g.add2(sum, o.value);
        g.output(&format!("sum{k}"), sum);
    }
    g
}

#[test]
fn it_keeps_values_but_for_rounding() {
    let mut rewritten = 0;
    for seed in 0..200 {
        let g = with_sums(seed);
        let mut h = g.clone();
        TWICE.apply(&mut h);
        verify(&h).unwrap_or_else(|problems| panic!("{problems:?}"));
        rewritten += (g.op_counts() != h.op_counts()) as usize;
        let inputs = random_inputs(&g, seed);
        let (before, after) = (interpret(&g, &inputs).unwrap(), interpret(&h, &inputs).unwrap());
        for (name, x) in &before {
            for (p, q) in x.data.iter().zip(&after[name].data) {
                let same = p == q || p.is_nan() && q.is_nan() || (p - q).abs() <= 1e-15 * p.abs().max(1.0);
                assert!(same, "{seed}: {name} was {p}, is {q}");
            }
        }
    }
    assert!(rewritten > 100, "only {rewritten} graphs have a sum it rewrites");
}
