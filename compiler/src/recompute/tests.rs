//! Graphs with recomputation mean what they meant, and need the memory that is said.

use super::budget::Search;
use super::kept::Kept;
use super::rerun::rerun;
use crate::config::{ModelConfig, StepConfig};
use crate::cost::CostModel;
use crate::driver::{OptimizeOptions, optimize};
use crate::graph::Graph;
use crate::interp::{Precision, Tensor, interpret_in};
use crate::lower::lower;
use crate::model::training_graph;
use crate::verify::verify;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

fn fused(n_layers: usize, tied_embeddings: bool, bias: bool) -> Graph {
    let model = ModelConfig {
        tied_embeddings,
        bias,
        init_std: 0.1,
        ..ModelConfig::gopher(n_layers, 2, 4, 8, 16, 16)
    };
    let step = StepConfig { output_gradients: true, ..StepConfig::new(4) };
    let mut g = training_graph(&model, &step).expect("a graph");
    optimize(&mut g, &OptimizeOptions::default()).expect("passes");
    g
}

fn outputs(g: &Graph) -> BTreeMap<String, Vec<u64>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut inputs = BTreeMap::new();
    for &n in &g.inputs {
        let ty = g.ty(n.into());
        let mut number = || match ty.dtype.is_float() {
            true => f64::from(rng.random_range(0.1f32..1.0)),
            false => f64::from(rng.random_range(0..16)),
        };
        let values = (0..ty.elements()).map(|_| number()).collect();
        inputs.insert(g.input_name(n).expect("a name").to_string(), Tensor::new(ty, values));
    }
    let found = interpret_in(g, &inputs, Precision::F32).expect("values");
    found.into_iter().map(|(name, t)| (name, t.data.iter().map(|x| x.to_bits()).collect())).collect()
}

#[test]
fn any_choice_computes_the_same() {
    for (n_layers, tied, bias) in [(2, true, false), (3, false, true)] {
        let g = fused(n_layers, tied, bias);
        let expected = outputs(&g);
        let kept = Kept::of(&g).expect("kept values");
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(n_layers as u64);
        for _ in 0..12 {
            let given_up: Vec<_> =
                kept.groups.iter().flat_map(|g| &g.values).filter(|_| rng.random_bool(0.5)).collect();
            let saved: FxHashSet<_> = kept.values.iter().filter(|v| !given_up.contains(v)).copied().collect();
            let (changed, copies) = rerun(&g, &kept, &saved);
            verify(&changed).expect("a sound graph");
            assert!(!copies.is_empty() && outputs(&changed) == expected, "{given_up:?}");
            lower(&changed).expect("code for every copy");
            // No copy is useless.
            for &n in &copies {
                assert!(!changed.consumers(n).is_empty());
            }
        }
    }
}

#[test]
fn what_is_kept_is_grouped_by_layer() {
    let g = fused(3, true, false);
    let kept = Kept::of(&g).expect("kept values");
    let of = |name: &str| kept.groups.iter().find(|g| g.name == name).map(|g| g.values.len());
    for name in ["layers.*.qkv dot", "layers.*.norm2 mul", "layers.*.norm1 mul", "layers.*.rel dot"] {
        assert_eq!(of(name), Some(3), "{name} among {:?}", kept.groups);
    }
    // The first layer's norm reads the embedding, which no sum of its own precedes.
    assert_eq!(of("embed gather"), Some(1));
    assert_eq!(of("layers.*.norm1 add"), Some(2));
    // Outputs are in memory anyway.
    for o in &g.outputs {
        assert!(kept.groups.iter().all(|group| !group.values.contains(&o.value)), "{}", o.name);
    }
}

#[test]
fn every_budget_on_the_curve_is_met_for_no_more_time() {
    let g = fused(4, true, false);
    let cost = CostModel::default();
    let planned = lower(&g).expect("a program");
    let search = Search::new(&g, &planned, &cost);
    let curve = search.curve().expect("a curve");
    assert_eq!((curve[0].bytes, curve[0].rerun.len()), (planned.program.total_bytes(), 0));
    assert!(curve.len() > 3);
    for pair in curve.windows(2) {
        assert!(pair[1].bytes < pair[0].bytes && pair[1].extra_us > pair[0].extra_us, "{pair:#?}");
        let middle = (pair[0].bytes + pair[1].bytes) / 2;
        for budget in [pair[1].bytes, middle] {
            let (point, _, lowered) = search.fit(budget).expect("a program");
            let point = point.expect("a point");
            assert!(point.bytes <= budget && point.bytes == lowered.program.total_bytes());
            assert!(point.extra_us <= pair[1].extra_us * 1.001, "{point:#?} {pair:#?}");
        }
    }
    let (point, _, least) = search.fit(1000).expect("a program");
    assert_eq!((point, least.program.total_bytes()), (None, curve[curve.len() - 1].bytes));
}
