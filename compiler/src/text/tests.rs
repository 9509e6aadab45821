//! Round trips, and texts nobody meant to write.

use super::*;
use crate::graph::{Axes, Binary, Graph, Op, ReduceKind, Role, TensorType, Unary};
use crate::passes::by_name;
use crate::verify::verify;
use isoflop_kernels::DType;
use isoflop_kernels::program::Init;
use proptest::prelude::*;

/// A graph with everything the form can say: scopes, odd names, roles, floats of every kind, a region, ids with gaps.
fn specimen() -> Graph {
    let mut g = Graph::new("odd name");
    let x = g.new_input("x", TensorType::f32(&[4, 8]), Role::Data);
    g.set_scope("layers.0.norm1");
    let w = g.new_input("param.w 1", TensorType::f32(&[8]), Role::State(Init::Normal { std: 0.02 }));
    let sq = g.mul(x, x);
    let s = g.reduce_sum(sq, &[1]);
    g.set_scope("scope \"with\" quotes\nand \u{1}\\");
    let t = g.new_input("t", TensorType::new(DType::I32, &[]), Role::Table(Init::RelativeSinusoid));
    for v in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 1e-300, 0.1, 1e16, 3.0] {
        g.constant(v, TensorType::f32(&[4]));
    }
    let mut region = Graph::new("");
    let p0 = region.new_input("p0", TensorType::f32(&[4]), Role::Data);
    let e = region.unary(Unary::Exp, p0);
    let p1 = region.new_input("p1", TensorType::f32(&[8]), Role::Data);
    region.output("r0", e);
    region.output("r1", p1);
    let f = g.add(
        Op::Fused { region: Box::new(region) },
        &[s, w],
        &[TensorType::f32(&[4]), TensorType::f32(&[8])],
    );
    let first = crate::graph::Value { node: f, result: 0 };
    let m = g.reduce(ReduceKind::Max, first, &[0]);
    let p = g.pad(first, &[1], &[2], f64::NEG_INFINITY);
    let d = g.dot(x, w, [&[], &[]], [&[1], &[0]]);
    let b = g.binary(Binary::Pow, d, first);
    let all = g.apply(Op::AllReduce { group: "data parallel".into() }, &[b]);
    let i = g.iota(0, TensorType::i32(&[3]));
    let table = g.broadcast(t, &[], &[8, 2]);
    let rows = g.gather(table, i);
    g.output("m", m);
    g.output("p", p);
    g.output("next", all);
    g.output("rows of table", rows);
    g.output("param.w 1", crate::graph::Value { node: f, result: 1 });
    g
}

#[test]
fn printing_and_parsing_are_inverse() {
    let g = specimen();
    let text = print(&g);
    let back = parse(&text, "specimen").unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print(&back), text);
    let ids = |g: &Graph| {
        g.topological().iter().map(|&n| (g.node(n).id, g.node(n).scope.clone())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&back), ids(&g));
    assert_eq!(print(&parse_unverified(&text, "specimen").unwrap()), text);
}

#[test]
fn several_graphs_in_one_text() {
    let text = print(&specimen());
    let graphs = parse_all(&format!("// two\n{text}{text}"), "two").unwrap();
    assert_eq!(graphs.len(), 2);
    assert!(parse_all("", "none").unwrap().is_empty());
}

#[test]
fn every_mnemonic_is_read_and_every_operation_has_one() {
    for m in MNEMONICS {
        let e = parse(&format!("graph @g() -> () {{ %0 = {m} {{nothing=1}} return }}"), "m").unwrap_err();
        assert!(!e.message.contains("unknown operation"), "{m}: {e}");
    }
    let axes = Axes::new();
    let region = Box::new(Graph::new(""));
    for op in [Op::Broadcast { dims: axes.clone() }, Op::Reshape, Op::Gather, Op::Fused { region }] {
        assert!(MNEMONICS.contains(&op.mnemonic()));
    }
}

proptest! {
    #[test]
    fn numbers_read_back_as_they_were(bits: u64) {
        let x = f64::from_bits(bits);
        let text = format!("graph @g() -> () {{ %0 = constant {{value={}}} : f64[] return }}", number(x));
        let g = parse(&text, "n").unwrap();
        let n = g.topological()[0];
        let Op::Constant { value } = g.op(n) else { panic!() };
        prop_assert!(value.to_bits() == x.to_bits() || value.is_nan() && x.is_nan());
    }

    #[test]
    fn names_read_back_as_they_were(name in any::<String>()) {
        let mut g = Graph::new(&name);
        g.set_scope(&name);
        let x = g.new_input(&name, TensorType::f32(&[]), Role::Data);
        g.output(&name, x);
        let back = parse(&print(&g), "n").unwrap();
        prop_assert_eq!(&back.name, &name);
        prop_assert_eq!(back.input_name(x.node), Some(name.as_str()));
        prop_assert_eq!(&back.outputs[0].name, &name);
    }

    /// Bytes of a good text removed, repeated, or replaced by others the language knows.
    #[test]
    fn damaged_text_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24), 1..12)) {
        let pieces = ["%", "%99", "#7", ":", "{", "}", "[", "]", "(", ")", "->", "=", ",", "\"", "@", "-", "\\", "é",
            "18446744073709551615", "1099511627776", "fused", "f32[1099511627776,1099511627776]", "//", "\n"];
        let mut text: Vec<char> = print(&specimen()).chars().collect();
        for (at, piece) in edits {
            let at = at.index(text.len());
            match piece % 3 {
                0 => { text.remove(at); }
                _ => { text.splice(at..at + 1, pieces[piece].chars()); }
            }
        }
        let text: String = text.into_iter().collect();
        for result in [parse(&text, "f"), parse_unverified(&text, "f")] {
            match result {
                Ok(mut g) => {
                    prop_assert!(!print(&g).is_empty());
                    for pass in ["simplify", "fold", "cse", "dce"] {
                        if verify(&g).is_ok() {
                            by_name(pass).unwrap().apply(&mut g);
                            prop_assert!(verify(&g).is_ok(), "{} of\n{}", pass, text);
                        }
                    }
                }
                Err(e) => prop_assert!(e.to_string().starts_with("f:")),
            }
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = parse_all(&text, "f");
    }
}

#[test]
fn the_specification_names_every_operation() {
    let spec = include_str!("../../../docs/spec.md");
    for m in MNEMONICS.iter().chain(&["input"]) {
        let headed = spec.lines().any(|l| {
            l.strip_prefix("### ").is_some_and(|names| names.split(", ").any(|n| n == *m))
                || l.starts_with(&format!("| `{m}` |"))
        });
        assert!(headed, "docs/spec.md does not say what `{m}` means");
    }
}

#[test]
fn regions_nest_only_so_deep() {
    let text = format!("graph @g() -> () {{ {}", "%0 = fused() { ".repeat(100_000));
    let e = parse(&text, "deep").unwrap_err();
    assert_eq!(e.message, "regions are nested more than 16 deep");
}
