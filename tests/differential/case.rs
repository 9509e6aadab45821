//! A random graph with inputs, and the ways through the compiler that it is sent: which passes, in which order, and
//! which merges. All of it follows from one seed.

use crate::generate::{self, INDICES};
use crate::layers::network;
use isoflop_compiler::fuse::shuffle::Shuffle;
use isoflop_compiler::graph::{Graph, Op, Role};
use isoflop_compiler::interp::Tensor;
use isoflop_compiler::passes::pipeline::{self, Options};
use isoflop_compiler::passes::{Context, PIPELINE, Registry};
use isoflop_compiler::text::{number, print};
use isoflop_kernels::DType;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fmt::Write;

pub type Tensors = BTreeMap<String, Tensor>;

/// Inputs repeat after this many numbers, so that a case can be written down.
pub const PERIOD: usize = 97;

/// A way through the compiler.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub passes: Vec<String>,
    pub shuffle: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub graph: Graph,
    pub given: Tensors,
    /// The first is also run on two threads.
    pub variants: Vec<Variant>,
}

impl Variant {
    /// What every model goes through.
    pub fn default_passes() -> Variant {
        Variant { passes: PIPELINE.map(String::from).to_vec(), shuffle: None }
    }

    /// Some passes in some order, then what no program can do without, and merges by chance or none.
    pub fn random(rng: &mut ChaCha8Rng) -> Variant {
        let all =
            ["match-attention", "match-head", "fold", "simplify", "cse", "dce", "recompute", "dce", "cse"];
        let mut passes: Vec<String> =
            all.iter().filter(|_| rng.random()).map(|&name| name.to_string()).collect();
        passes.shuffle(rng);
        passes.push("legalize".into());
        let fuses = rng.random_range(0..5) > 0;
        passes.push(if fuses { "fuse" } else { "outline" }.into());
        let shuffle = (fuses && rng.random_range(0..4) > 0).then(|| rng.random_range(0..1_000_000));
        Variant { passes, shuffle }
    }

    /// The graph after these passes, verified after each; or why one of them gave none.
    pub fn optimize(&self, g: &Graph, registry: &Registry) -> Result<Graph, String> {
        let passes = registry.parse_list(&self.passes.join(",")).map_err(|e| e.to_string())?;
        let shuffle = self.shuffle.map(|seed| Shuffle { seed });
        let mut context = Context { shuffle, ..Context::default() };
        let mut g = g.clone();
        let options = Options { verify: true, ..Options::default() };
        pipeline::run(&mut g, &passes, &options, &mut context).map_err(|e| e.to_string())?;
        Ok(g)
    }
}

/// The case of this seed: of five, two are of single operations, one is such a graph with gradients, two are networks.
/// A third go through the default passes, the others through passes and merges by chance.
pub fn case(seed: u64) -> Case {
    let graph = match seed % 5 {
        0 | 1 => generate::graph(seed, false),
        2 => generate::graph(seed, true),
        _ => network(seed),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(!seed);
    let given = inputs(&graph, &mut rng);
    let by_chance = rng.random_range(0..3) > 0;
    let variant = if by_chance { Variant::random(&mut rng) } else { Variant::default_passes() };
    Case { graph, given, variants: vec![variant] }
}

/// Inputs and states of a graph: floats between -2 and 2 that few bits hold, indices in 0..[`INDICES`].
pub fn inputs(g: &Graph, rng: &mut ChaCha8Rng) -> Tensors {
    let mut out = BTreeMap::new();
    for &n in &g.inputs {
        let ty = g.ty(n.into());
        let period: Vec<f64> = (0..PERIOD)
            .map(|_| match ty.dtype {
                DType::I32 => rng.random_range(0..INDICES) as f64,
                _ => f64::from(rng.random_range(-512..512)) / 256.0,
            })
            .collect();
        let data = period.into_iter().cycle().take(ty.elements()).collect();
        out.insert(g.input_name(n).unwrap_or_default().to_string(), Tensor::new(ty, data));
    }
    out
}

pub fn is_state(g: &Graph, name: &str) -> bool {
    g.input(name).is_some_and(|v| matches!(&g.op(v.node), Op::Input { role: Role::State(_), .. }))
}

/// A filetest that does to the graph what this variant does.
pub fn filetest(case: &Case, variant: &Variant) -> String {
    let mut out = format!("// test: run cpu {}\n", variant.passes.join(","));
    if let Some(seed) = variant.shuffle {
        let _ = writeln!(out, "// shuffle = {seed}");
    }
    for (name, t) in &case.given {
        let shown: Vec<String> = t.data.iter().take(PERIOD).map(|&x| number(x)).collect();
        let more = if t.data.len() > shown.len() { ", ..." } else { "" };
        let _ = writeln!(out, "// input {name} = {}{more}", shown.join(", "));
    }
    out + &print(&case.graph)
}
