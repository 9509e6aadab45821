//! Passes keep what a graph computes: random graphs before and after, in both precisions of the interpreter.

mod common;

use common::{random_graph, random_inputs};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::interp::{Precision, interpret_in};
use isoflop_compiler::passes::{all, by_name};
use isoflop_compiler::text::{parse, print};
use isoflop_compiler::verify::verify;
use proptest::prelude::*;

fn after(g: &Graph, pass: &str) -> Graph {
    let mut g = g.clone();
    by_name(pass).unwrap().apply(&mut g);
    if let Err(problems) = verify(&g) {
        panic!("{pass} broke the graph: {problems:?}\n{}", print(&g));
    }
    g
}

/// Outputs of both graphs agree within `tolerance` relative to the larger of 1 and the value; NaN agrees with NaN.
fn agree(g: &Graph, h: &Graph, seed: u64, precision: Precision, tolerance: f64) {
    let inputs = random_inputs(g, seed);
    let (a, b) = (interpret_in(g, &inputs, precision).unwrap(), interpret_in(h, &inputs, precision).unwrap());
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, x) in &a {
        let y = &b[name];
        assert_eq!(x.ty(), y.ty());
        for (k, (p, q)) in x.data.iter().zip(&y.data).enumerate() {
            let same = p == q || p.is_nan() && q.is_nan() || (p - q).abs() <= tolerance * p.abs().max(1.0);
            assert!(same, "{name}[{k}] was {p}, is {q}\nbefore:\n{}after:\n{}", print(g), print(h));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exact_passes_keep_every_value(seed: u64, size in 1usize..60) {
        let g = random_graph(seed, size, false);
        for pass in all().iter().filter(|p| !p.changes_rounding) {
            let h = after(&g, pass.name);
            agree(&g, &h, seed, Precision::F64, 0.0);
            agree(&g, &h, seed, Precision::F32, 0.0);
        }
    }

    /// On graphs without comparisons and casts, which turn a last bit into a whole number.
    #[test]
    fn fold_keeps_values_but_for_rounding(seed: u64, size in 1usize..60) {
        let g = random_graph(seed, size, true);
        agree(&g, &after(&g, "fold"), seed, Precision::F64, 1e-9);
    }

    #[test]
    fn a_second_time_changes_nothing(seed: u64, size in 1usize..60) {
        let g = random_graph(seed, size, false);
        for pass in ["simplify", "fold", "cse", "dce"] {
            let once = after(&g, pass);
            prop_assert_eq!(print(&once), print(&after(&once, pass)), "{}", pass);
        }
    }

    #[test]
    fn the_same_graph_gives_the_same_text(seed: u64, size in 1usize..60) {
        let g = random_graph(seed, size, false);
        let read = parse(&print(&g), "printed").unwrap();
        prop_assert_eq!(print(&read), print(&g));
        for pass in ["simplify", "fold", "cse", "dce"] {
            prop_assert_eq!(print(&after(&g, pass)), print(&after(&read, pass)), "{}", pass);
        }
    }
}

#[test]
fn together_they_shrink_random_graphs() {
    let (mut before, mut left) = (0, 0);
    for seed in 0..50 {
        let mut g = after(&random_graph(seed, 60, false), "dce");
        before += g.nodes().node_count();
        for pass in ["simplify", "cse", "simplify"] {
            g = after(&g, pass);
        }
        left += g.nodes().node_count();
    }
    assert!(left * 10 < before * 9, "{before} nodes became {left}");
}
